//! The requests of a batch. `tests/lock_manager` runs batches on a server.

use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::driver::asynchronous::tests::{PanickingSession, assert_panics_once};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockMode, WaitStrategy};
use crate::session::{Cell, LockOp, LockReply, Row, StatementKind, TransactionState};

const PID: i32 = 7;

/// Session that records its requests.
#[derive(Default)]
struct RecordingSession(Vec<String>);

impl RecordingSession {
    fn record(&mut self, request: &str) -> Result<(), SessionError> {
        self.0.push(request.to_owned());
        Ok(())
    }
}

impl AsyncLockSession for RecordingSession {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
    }

    fn session_mark_broken(&mut self) {}

    fn session_start_terminate(&mut self, _pid: Option<i32>) {}

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        self.record("begin")
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        self.record("commit")
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.record("rollback")
    }

    async fn session_query(&mut self, _statement: &Statement) -> Result<Row, SessionError> {
        self.record("batch")?;
        let answers = Cell::Numbers(vec![Some(1), Some(1)]);
        let pid = Cell::Number(PID.into());
        Ok(Row::new([answers, Cell::Null, pid, Cell::Number(0)]))
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.record(&script.sql())
    }

    async fn session_sleep(&mut self, _pause: Duration) {}
}

fn requests(mode: BatchMode) -> Vec<String> {
    let release = |key: i64| {
        let key = LockKey::from(key).raw();
        LockOp::new(LockOpKind::Release, key, LockMode::Exclusive)
    };
    let ops = [release(1), release(2)];
    let batch = LockBatch::new(mode, PID, ops, TokenSource::TransactionId);
    let mut session = RecordingSession::default();
    pollster::block_on(run(&mut session, &batch)).unwrap();
    session.0
}

#[test]
fn compensation_runs_without_statement_timeout() {
    assert_eq!(requests(BatchMode::Execute), ["batch"]);
    assert_eq!(
        requests(BatchMode::Compensate),
        [
            "begin",
            "SET LOCAL statement_timeout = 0",
            "batch",
            "commit"
        ]
    );
}

/// Otherwise a blocking caller that polls a busy session would work for all other callers.
#[test]
fn queued_command_is_left_for_the_next_poll() {
    let (sender, mut commands) = futures_channel::mpsc::unbounded();
    sender.unbounded_send(SessionCommand::Close).unwrap();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut next = pin!(next_command(&mut commands));
    assert!(next.as_mut().poll(&mut context).is_pending());
    let polled = next.as_mut().poll(&mut context);
    assert!(matches!(polled, Poll::Ready(Some(SessionCommand::Close))));
}

#[test]
fn client_that_panics_twice_does_not_abort() {
    let mut session = PanickingSession::default();
    assert_panics_once(|| {
        let _conn = TerminateIfArmed::new(&mut session, None);
        panic!("the client panics");
    });
    assert_eq!(session.terminated, 1);
}

/// Pool, and session, that grants every attempt.
#[derive(Clone)]
struct Opens {
    backend: Backend,
    signs: ServerSigns,
    /// The signs that each attempt refuses.
    refused: Arc<Mutex<Vec<ServerSigns>>>,
    /// The process id of each termination.
    terminated: Arc<Mutex<Vec<Option<i32>>>>,
}

impl Opens {
    fn new(backend: Backend, signs: ServerSigns) -> Self {
        Self {
            backend,
            signs,
            refused: Arc::default(),
            terminated: Arc::default(),
        }
    }
}

fn reporter() -> SessionReporter {
    let shared = Shared::new(LockManagerOptions::new(), false, Box::new(|_, _, _| None));
    let id = SessionId::IN_PROCESS;
    SessionReporter { shared, id }
}

impl AsyncLockPool for Opens {
    type Session = Self;
    type Connection = Box<Self>;

    async fn checkout(&self) -> Result<Box<Self>, SessionError> {
        Ok(Box::new(self.clone()))
    }
}

impl AsyncLockSession for Opens {
    fn session_backend(&mut self) -> Backend {
        self.backend
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
    }

    fn session_mark_broken(&mut self) {}

    fn session_start_terminate(&mut self, pid: Option<i32>) {
        self.terminated.lock().unwrap().push(pid);
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        if let Some(StatementKind::TryAcquire { refuses, .. }) = statement.kind() {
            self.refused.lock().unwrap().push(refuses);
            let granted = LockReply {
                answer: Some(true),
                pid: PID,
                transaction_began: 1,
                server_signs: ServerSigns::NONE,
            };
            return Ok(granted.into());
        }
        let (pid, signs) = (Cell::Number(PID.into()), self.signs.bits());
        Ok(Row::new([
            Cell::Null,
            Cell::Null,
            pid,
            Cell::Number(signs.into()),
        ]))
    }
}

/// Otherwise each request would end a session of a server that is refused anyway.
#[test]
fn session_in_a_known_state_returns_to_the_pool() {
    for (backend, signs, refused) in [
        (Backend::Sqlite, ServerSigns::NONE, None),
        (
            Backend::Postgres,
            ServerSigns::COCKROACH_DB,
            Some(LockErrorKind::NoMutualExclusion),
        ),
        (
            Backend::Postgres,
            ServerSigns::STANDBY,
            Some(LockErrorKind::Standby),
        ),
    ] {
        let pool = Opens::new(backend, signs);
        let opened = pollster::block_on(open(&reporter(), &pool, ServerSigns::NONE));
        assert_eq!(opened.err().map(|error| error.kind()), refused);
        let terminated = pool.terminated.lock().unwrap();
        assert!(terminated.is_empty(), "{backend:?} {signs:?}");
    }
}

/// Behind a pooler, the termination could end the session of another client.
#[test]
fn dropped_session_is_terminated_by_its_process_id() {
    let pool = Opens::new(Backend::Postgres, ServerSigns::NONE);
    let opened = pollster::block_on(open(&reporter(), &pool, ServerSigns::NONE));
    drop(opened.unwrap());
    assert_eq!(*pool.terminated.lock().unwrap(), [Some(PID)]);
}

/// A wait begins with an attempt, which refuses servers as the first statement does.
#[test]
fn wait_refuses_no_server_that_the_options_accept() {
    let (sender, commands) = futures_channel::mpsc::unbounded();
    sender.unbounded_send(SessionCommand::Open).unwrap();
    let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    let key = LockKey::from(1);
    let wait = SessionCommand::WaitOnServer { key, options };
    sender.unbounded_send(wait).unwrap();
    drop(sender);
    let pool = Opens::new(Backend::Postgres, ServerSigns::STANDBY);
    let session = session_loop(reporter(), &pool, ServerSigns::STANDBY, commands);
    pollster::block_on(session);
    assert_eq!(*pool.refused.lock().unwrap(), [ServerSigns::STUBS]);
}

/// Pool that never returns a connection, as deadpool's without a timeout.
struct Exhausted;

impl AsyncLockPool for Exhausted {
    type Session = Opens;
    type Connection = Box<Opens>;

    async fn checkout(&self) -> Result<Box<Opens>, SessionError> {
        std::future::pending().await
    }
}

#[test]
fn checkout_ends_at_its_limit() {
    let opened = pollster::block_on(open(&reporter(), &Exhausted, ServerSigns::NONE));
    let kind = opened.err().map(|error| error.kind());
    assert_eq!(kind, Some(LockErrorKind::Pool));
}
