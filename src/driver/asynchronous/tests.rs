//! Client libraries that panic while a session is terminated, or never reply.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Waker};

use super::*;
use crate::error::LockErrorKind;
use crate::protocol::{Acquire, BeginAndAcquire};
use crate::session::{Row, Script, SessionError, TransactionState};

/// Session whose client library panics at each statement and at the termination.
#[derive(Default)]
pub(crate) struct PanickingSession {
    pub(crate) terminated: u32,
    /// The server never replies to a query, so only the termination panics.
    is_silent: bool,
}

impl AsyncLockSession for PanickingSession {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
    }

    fn session_mark_broken(&mut self) {}

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        panic!("the client panics")
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        panic!("the client panics")
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        panic!("the client panics")
    }

    async fn session_query(&mut self, _statement: &Statement) -> Result<Row, SessionError> {
        if self.is_silent {
            return std::future::pending().await;
        }
        panic!("the client panics")
    }

    fn session_enqueue(&mut self, _script: &Script) -> bool {
        panic!("the client panics")
    }

    fn session_start_rollback_to(&mut self, _depth: u32) -> bool {
        panic!("the client panics")
    }

    fn session_start_terminate(&mut self, _pid: Option<i32>) {
        self.terminated += 1;
        panic!("the client panics")
    }

    async fn session_sleep(&mut self, _pause: Duration) {}
}

/// Asserts that `act` panics. A second panic during the first would abort the process.
pub(crate) fn assert_panics_once(act: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(act)).is_err());
}

/// Polls a future once, and drops it.
fn poll<T>(future: impl Future<Output = T>) {
    let mut context = Context::from_waker(Waker::noop());
    drop(pin!(future).poll(&mut context));
}

#[test]
fn client_that_panics_twice_does_not_abort() {
    let mut session = PanickingSession::default();
    let (key, options) = (LockKey::from("panics"), LockOptions::no_wait());
    assert_panics_once(|| {
        let scope = LockScope::Session;
        let machine =
            |key, options: &_, state| Acquire::new(key, options, LockScope::Session, state);
        let call = drive_acquire(&mut session, &key, &options, scope, machine);
        poll(call);
    });
    assert_eq!(session.terminated, 1);
}

/// The panic of the begin is followed by one of the rollback.
#[test]
fn panic_in_the_rollback_of_a_drop_terminates() {
    let mut session = PanickingSession::default();
    let (key, options) = (LockKey::from("panics"), LockOptions::no_wait());
    assert_panics_once(|| {
        let scope = LockScope::Transaction;
        let machine = BeginAndAcquire::new;
        poll(drive_acquire(&mut session, &key, &options, scope, machine));
    });
    assert_eq!(session.terminated, 1);
}

#[test]
fn panic_in_the_pooler_check_terminates_both_sessions() {
    let mut sessions = [PanickingSession::default(), PanickingSession::default()];
    assert_panics_once(|| {
        let [first, second] = &mut sessions;
        let check = PoolerCheck::new(&snapshot(first), &snapshot(second));
        poll(drive_pair(first, second, check));
    });
    assert_eq!(sessions.map(|session| session.terminated), [1, 1]);
}

#[test]
fn panic_in_a_termination_terminates_the_other_session() {
    let mut sessions = [(); 2].map(|()| PanickingSession {
        terminated: 0,
        is_silent: true,
    });
    assert_panics_once(|| {
        let [first, second] = &mut sessions;
        let check = PoolerCheck::new(&snapshot(first), &snapshot(second));
        // Dropped while it waits for the first reply.
        poll(drive_pair(first, second, check));
    });
    assert_eq!(sessions.map(|session| session.terminated), [1, 1]);
}

/// Session whose server never replies.
#[derive(Default)]
struct SilentSession(Option<Statement>);

impl AsyncLockSession for SilentSession {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
    }

    fn session_mark_broken(&mut self) {}

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        std::future::pending().await
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        std::future::pending().await
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        std::future::pending().await
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.0 = Some(statement.clone());
        std::future::pending().await
    }

    fn session_start_terminate(&mut self, _pid: Option<i32>) {}

    async fn session_sleep(&mut self, _pause: Duration) {}
}

/// Request that a server does not reply to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Silent {
    Begin,
    /// Number of the attempt. The first is part of the begin.
    Attempt(u32),
    Script,
}

/// Session in a transaction of the caller, on which the lock is contended.
struct SavepointSession {
    silent: Silent,
    attempts: u32,
    rolled_back_to: Option<u32>,
    terminated: u32,
}

impl SavepointSession {
    async fn request(&self, request: Silent) {
        if self.silent == request {
            std::future::pending().await
        }
    }
}

impl AsyncLockSession for SavepointSession {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::open(1)
    }

    fn session_mark_broken(&mut self) {}

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        self.request(Silent::Begin).await;
        Ok(())
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_query(&mut self, _statement: &Statement) -> Result<Row, SessionError> {
        self.attempts += 1;
        self.request(Silent::Attempt(self.attempts)).await;
        Ok(Row::from(LockReply {
            answer: Some(false),
            pid: 1,
            transaction_began: 1,
            server_signs: crate::session::ServerSigns::NONE,
        }))
    }

    async fn session_execute(&mut self, _script: &Script) -> Result<(), SessionError> {
        self.request(Silent::Script).await;
        Ok(())
    }

    fn session_start_rollback_to(&mut self, depth: u32) -> bool {
        self.rolled_back_to = Some(depth);
        true
    }

    fn session_start_terminate(&mut self, _pid: Option<i32>) {
        self.terminated += 1;
    }

    async fn session_sleep(&mut self, _pause: Duration) {}
}

/// A termination would end the caller's transaction, too.
#[test]
fn drop_in_a_savepoint_rolls_back_to_the_callers_transaction() {
    for silent in [
        Silent::Begin,
        Silent::Attempt(1),
        Silent::Script,
        Silent::Attempt(2),
    ] {
        let mut session = SavepointSession {
            silent,
            attempts: 0,
            rolled_back_to: None,
            terminated: 0,
        };
        let (key, options) = (LockKey::from("savepoint"), LockOptions::wait_forever());
        let scope = LockScope::Transaction;
        let machine = BeginAndAcquire::new;
        poll(drive_acquire(&mut session, &key, &options, scope, machine));
        let ended = (session.rolled_back_to, session.terminated);
        assert_eq!(ended, (Some(1), 0), "{silent:?}");
    }
}

#[test]
fn error_does_not_await_a_silent_report() {
    let (mut session, key) = (SilentSession::default(), LockKey::from("key"));
    let options = LockOptions::wait_up_to(Duration::ZERO);
    let timed_out = Err(LockError::new(LockErrorKind::TimedOut));
    let error = {
        let mut ended = pin!(with_holders(&mut session, &key, &options, timed_out));
        let mut context = Context::from_waker(Waker::noop());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Poll::Ready(result) = ended.as_mut().poll(&mut context) {
                break result.unwrap_err();
            }
            assert!(Instant::now() < deadline, "the call awaits the report");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    assert!(error.holders().is_empty());
    assert_eq!(session.0, Some(Statement::holders(key.raw())));
}

/// Session on a backend without locks.
struct OpenTransactions {
    depth: u32,
    rollback_fails: bool,
    rollbacks: u32,
    is_broken: bool,
}

impl AsyncLockSession for OpenTransactions {
    fn session_backend(&mut self) -> Backend {
        Backend::Sqlite
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::open(self.depth)
    }

    fn session_mark_broken(&mut self) {
        self.is_broken = true;
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.rollbacks += 1;
        assert!(self.rollbacks <= 2, "the rollbacks do not end");
        if self.rollback_fails {
            return Err(SessionError::new("the rollback fails"));
        }
        self.depth -= 1;
        Ok(())
    }

    fn session_start_terminate(&mut self, _pid: Option<i32>) {}
}

#[test]
fn termination_rolls_back_without_locks_and_ends() {
    for (rollback_fails, rollbacks) in [(false, 2), (true, 1)] {
        let mut session = OpenTransactions {
            depth: 2,
            rollback_fails,
            rollbacks: 0,
            is_broken: false,
        };
        poll(terminate(&mut session, None));
        assert_eq!((session.rollbacks, session.is_broken), (rollbacks, true));
    }
}

#[test]
fn transaction_without_locks_is_not_identified() {
    for (depth, refused) in [(0, None), (1, Some(LockErrorKind::InTransaction))] {
        let mut session = OpenTransactions {
            depth,
            rollback_fails: false,
            rollbacks: 0,
            is_broken: false,
        };
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(identified) = pin!(identify(&mut session)).poll(&mut context) else {
            panic!("nothing is sent");
        };
        assert_eq!(identified.err().map(|error| error.kind()), refused);
    }
}
