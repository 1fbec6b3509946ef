//! Fuzz target of the machines: arbitrary events, valid or not.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::error::LockErrorKind;
use crate::fuzzing::Bytes;
use crate::key::LockKey;
use crate::options::{LockMode, LockOptions, LockScope, OnMissingLock, WaitStrategy};
use crate::pooling_mode::PoolingMode;
use crate::protocol::{
    Acquire, Action, BeginAndAcquire, Event, FinishTransaction, Grant, Machine, PoolerCheck,
    Release, SessionSnapshot,
};
use crate::session::{
    Backend, LockReply, Script, ServerSigns, SessionError, SqlState, StatementKind,
    TransactionState,
};

/// Runs the machine that the first byte selects until it is done. The other bytes determine its
/// events.
///
/// # Panics
///
/// If the machine does not finish, acts after its end, reports a lock that was not granted, or
/// leaves a lock or transaction behind.
pub fn machines(data: &[u8]) {
    let mut server = FakeServer::new(data);
    match server.bytes.one_of(&[0, 1, 2, 3, 4]) {
        0 => acquire(&mut server),
        1 => begin_and_acquire(&mut server),
        2 => release(&mut server),
        3 => finish_transaction(&mut server),
        _ => pooler_check(&mut server),
    }
}

/// Fake server session: scripted replies, and the state that they leave.
struct FakeServer<'d> {
    bytes: Bytes<'d>,
    now: Instant,
    backend: Backend,
    /// The last reply granted a lock.
    granted: bool,
    /// The session may hold a session-level lock that the caller does not know of.
    may_hold: bool,
    /// A transaction that the machine began may be open.
    may_be_open: bool,
    terminated: bool,
    committed: Option<bool>,
    rolled_back: bool,
    /// Reply to the release.
    released: Option<Option<bool>>,
}

const CODES: [Option<&str>; 11] = [
    None,
    Some("55P03"),
    Some("40P01"),
    Some("57014"),
    Some("53200"),
    Some("25P02"),
    Some("57P01"),
    Some("42883"),
    Some("XX000"),
    Some("26000"),
    Some("ZAL02"),
];
const ELAPSED: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Duration::from_millis(50),
    Duration::from_secs(3_000_000),
];

impl<'d> FakeServer<'d> {
    fn new(data: &'d [u8]) -> Self {
        Self {
            bytes: Bytes(data),
            now: Instant::now(),
            backend: Backend::Postgres,
            granted: false,
            may_hold: false,
            may_be_open: false,
            terminated: false,
            committed: None,
            rolled_back: false,
            released: None,
        }
    }

    fn snapshot(&mut self) -> SessionSnapshot {
        let transaction = self.bytes.one_of(&[
            TransactionState::none(),
            TransactionState::open(1),
            TransactionState::open(2),
            TransactionState::in_test(0),
            TransactionState::in_test(1),
            TransactionState::broken(),
        ]);
        SessionSnapshot {
            backend: self.backend,
            provides_exclusion: self.backend == Backend::Postgres,
            transaction,
            max_server_wait: self.bytes.one_of(&[None, Some(Duration::from_secs(1))]),
        }
    }

    fn choose_backend(&mut self) {
        self.backend = self.bytes.one_of(&[
            Backend::Postgres,
            Backend::Postgres,
            Backend::Postgres,
            Backend::Sqlite,
        ]);
    }

    fn key(&mut self) -> LockKey {
        if self.bytes.one_of(&[false, true]) {
            LockKey::from((1, 2))
        } else {
            LockKey::from(7)
        }
    }

    fn mode(&mut self) -> LockMode {
        self.bytes.one_of(&[LockMode::Exclusive, LockMode::Shared])
    }

    fn options(&mut self) -> LockOptions {
        let mut options = self.bytes.one_of(&[
            LockOptions::no_wait(),
            LockOptions::wait_up_to(Duration::ZERO),
            LockOptions::wait_up_to(Duration::from_millis(20)),
            LockOptions::wait_up_to(Duration::from_secs(4_000_000)),
            LockOptions::wait_forever(),
        ]);
        options = options.mode(self.mode());
        match self.bytes.one_of(&[0, 1, 2, 3, 4]) {
            0 => {}
            1 => options = options.strategy(WaitStrategy::Block),
            2 => options = options.strategy(WaitStrategy::Poll),
            _ => {
                options = options.interval(Duration::from_nanos(u64::from(
                    self.bytes.next().unwrap_or(0),
                )))
            }
        }
        if self.bytes.one_of(&[false, true]) {
            options = options.allow_in_transaction();
        }
        options.on_missing_lock(
            self.bytes
                .one_of(&[OnMissingLock::Ignore, OnMissingLock::Error]),
        )
    }

    fn error(&mut self) -> SessionError {
        let code = self.bytes.one_of(&CODES).and_then(SqlState::new);
        let gone = self.bytes.one_of(&[false, false, false, true]);
        SessionError::new("made up")
            .with_code(code)
            .with_disconnected(gone)
    }

    /// Returns a reply; an error once the bytes are used up.
    fn row(&mut self) -> Result<LockReply, SessionError> {
        match self.bytes.next() {
            Some(byte) if byte % 4 != 0 => {
                let answer = self.bytes.one_of(&[Some(true), Some(false), None]);
                Ok(LockReply {
                    answer,
                    pid: self.bytes.one_of(&[1, 1, 1, 2]),
                    transaction_began: 1,
                    server_signs: ServerSigns::NONE,
                })
            }
            Some(_) => Err(self.error()),
            None => Err(SessionError::new("used up").with_disconnected(true)),
        }
    }

    fn ran(&mut self) -> Result<(), SessionError> {
        match self.bytes.next() {
            Some(byte) if byte % 2 != 0 => Ok(()),
            Some(_) => Err(self.error()),
            None => Err(SessionError::new("used up").with_disconnected(true)),
        }
    }

    /// Returns, now and then, an event that no driver produces.
    fn invalid_event(&mut self) -> Option<Event> {
        if self.bytes.next()? % 16 != 0 {
            return None;
        }
        Some(match self.bytes.one_of(&[0, 1, 2, 3]) {
            0 => Event::Ready,
            1 => Event::SessionState(self.snapshot()),
            2 => Event::Begun(Err(SessionError::new("made up"))),
            3 => Event::Row(Ok(LockReply {
                answer: Some(true),
                pid: 1,
                transaction_began: 1,
                server_signs: ServerSigns::NONE,
            })),
            _ => Event::Ran(Ok(())),
        })
    }

    fn reply<T>(&mut self, action: &Action<T>) -> Event {
        self.now += self.bytes.one_of(&ELAPSED);
        // A read of the session state sends nothing.
        self.granted &= matches!(action, Action::ReadSessionState);
        match action {
            Action::Query(statement) => {
                let row = self.row();
                if let Some(kind) = statement.kind() {
                    self.record_row(kind, &row);
                }
                Event::Row(row)
            }
            Action::Script(script) => {
                let ran = self.ran();
                self.record_script(*script, &ran);
                self.or_invalid_event(Event::Ran(ran))
            }
            Action::Begin => {
                let ran = self.ran();
                self.may_be_open = ran.is_ok() || self.backend == Backend::Postgres;
                Event::Ran(ran)
            }
            Action::BeginAndQuery(statement) => {
                let begun = self.ran();
                self.may_be_open = begun.is_ok() || self.backend == Backend::Postgres;
                let row = self.row();
                if let Some(kind) = statement.kind() {
                    self.record_row(kind, &row);
                }
                // A lock that was granted outside a transaction is gone.
                self.granted &= begun.is_ok();
                Event::Begun(begun.map(|()| row))
            }
            Action::Commit(_) => {
                let ran = self.ran();
                self.committed = Some(ran.is_ok());
                Event::Ran(ran)
            }
            Action::Rollback => {
                let ran = self.ran();
                self.rolled_back |= ran.is_ok();
                self.may_be_open &= ran.is_err();
                Event::Ran(ran)
            }
            Action::Terminate => {
                self.terminated = true;
                (self.may_hold, self.may_be_open) = (false, false);
                Event::Ready
            }
            Action::ReadSessionState => Event::SessionState(self.snapshot()),
            Action::Sleep(pause) => {
                assert!(
                    *pause > Duration::ZERO,
                    "a pause of zero would poll without a pause"
                );
                self.now += (*pause).min(Duration::from_secs(1));
                Event::Ready
            }
            Action::Done(_) => Event::Ready,
        }
    }

    /// Only if the machine treats it as a failure, and the action may have happened.
    fn or_invalid_event(&mut self, event: Event) -> Event {
        match self.invalid_event() {
            Some(
                invalid_event @ (Event::Ready | Event::SessionState(_) | Event::Begun(Err(_))),
            ) => {
                self.granted = false;
                invalid_event
            }
            _ => event,
        }
    }

    fn record_row(&mut self, kind: StatementKind, row: &Result<LockReply, SessionError>) {
        let answer = row.as_ref().ok().map(|row| row.answer);
        match kind {
            StatementKind::TryAcquire { scope, .. } => {
                self.granted = answer == Some(Some(true));
                // In an aborted transaction the server runs no statement.
                let may_have_run = |error: &SessionError| error.code() != SqlState::new("25P02");
                let is_unknown = self.granted || row.as_ref().is_err_and(may_have_run);
                self.may_hold |= scope == LockScope::Session && is_unknown;
            }
            StatementKind::Release { .. } => {
                self.released = answer;
                self.may_hold &= answer != Some(Some(true));
            }
            StatementKind::ReleaseIfHeld { .. } => {
                self.may_hold &= !matches!(answer, Some(Some(true) | None))
            }
            StatementKind::IsHeld => self.may_hold &= answer != Some(Some(false)),
            StatementKind::IsHeldByPreparedTransaction => {}
        }
    }

    fn record_script(&mut self, script: Script, ran: &Result<(), SessionError>) {
        if let Script::Wait { scope, .. } = script {
            self.granted = ran.is_ok();
            self.may_hold |= scope == LockScope::Session;
        }
    }

    fn drive<M: Machine<Output: Debug>>(&mut self, machine: &mut M) -> M::Output {
        // Each reply uses up bytes, and without bytes the machine must finish.
        let most = self.bytes.0.len() + 20;
        let mut event = Event::Ready;
        for _ in 0..most {
            let action = machine.handle(event, self.now);
            if let Action::Done(output) = action {
                let after = self.invalid_event().unwrap_or(Event::Ready);
                let after = machine.handle(after, self.now);
                assert!(
                    matches!(after, Action::Done(_)),
                    "returned {after:?} after its end"
                );
                return output;
            }
            event = self.reply(&action);
        }
        panic!("no end after {most} steps");
    }

    fn assert_clean(&self, kind: LockErrorKind) {
        assert!(!self.may_be_open, "a transaction is left open");
        // With `SessionChanged` it is unknown which session holds the lock.
        let unknown = kind == LockErrorKind::SessionChanged;
        assert!(!self.may_hold || unknown, "a lock is left");
    }
}

fn acquire(server: &mut FakeServer<'_>) {
    server.choose_backend();
    let scope = server
        .bytes
        .one_of(&[LockScope::Session, LockScope::Transaction]);
    let (key, options, snapshot) = (server.key(), server.options(), server.snapshot());
    let mut acquire = Acquire::new(key, &options, scope, snapshot);
    match server.drive(&mut acquire) {
        Ok(_) => assert!(
            server.granted || server.backend == Backend::Sqlite,
            "not granted"
        ),
        Err(error) => server.assert_clean(error.kind()),
    }
}

fn begin_and_acquire(server: &mut FakeServer<'_>) {
    server.choose_backend();
    let (key, options, snapshot) = (server.key(), server.options(), server.snapshot());
    let mut machine = BeginAndAcquire::new(key, &options, snapshot);
    match server.drive(&mut machine) {
        Ok(_) => assert!(
            server.granted || server.backend == Backend::Sqlite,
            "not granted"
        ),
        Err(error) => server.assert_clean(error.kind()),
    }
}

fn grant(server: &mut FakeServer<'_>) -> Grant {
    Grant {
        key: server.key(),
        mode: server.mode(),
        pid: server.bytes.one_of(&[Some(1), Some(1), Some(1), None]),
        transaction_began: None,
        depth: server.bytes.one_of(&[0, 1, 2]),
        record: None,
        #[cfg(feature = "testing")]
        attachment: None,
    }
}

fn release(server: &mut FakeServer<'_>) {
    let (grant, snapshot) = (grant(server), server.snapshot());
    let has_locks = grant.pid.is_some();
    match server.drive(&mut Release::new(grant, snapshot)) {
        Ok(()) => assert!(
            !has_locks || server.released == Some(Some(true)),
            "not released"
        ),
        Err(_) => assert!(
            server.terminated || server.released == Some(Some(false)),
            "may be held"
        ),
    }
}

fn finish_transaction(server: &mut FakeServer<'_>) {
    let (grant, snapshot) = (grant(server), server.snapshot());
    let ended_by_the_body = snapshot.transaction.depth() < grant.depth;
    let commits = server.bytes.one_of(&[true, false]);
    match server.drive(&mut FinishTransaction::new(grant, commits, snapshot)) {
        Ok(()) if commits => assert_eq!(server.committed, Some(true)),
        Ok(()) => assert!(server.rolled_back, "not rolled back"),
        Err(_) => assert!(
            server.terminated || server.committed == Some(false) || ended_by_the_body,
            "the transaction may be open"
        ),
    }
}

fn pooler_check(server: &mut FakeServer<'_>) {
    server.choose_backend();
    let mut check = PoolerCheck::new(&server.snapshot(), &server.snapshot());
    let outcome = server.drive(&mut check);
    // A session that serves another client of a pooler by now is not terminated.
    let may_leave = matches!(outcome, Ok(PoolingMode::Multiplexed));
    assert!(may_leave || !server.may_hold, "the test lock is left");
    if matches!(outcome, Ok(PoolingMode::Dedicated)) {
        assert!(!server.terminated, "a dedicated session was terminated");
    }
}
