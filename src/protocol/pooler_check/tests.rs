//! The pooler check against a simulated pooler.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::session::{SqlState, TransactionState};

/// Assignment of the pooler's sessions to connections.
#[derive(Clone, Copy, Debug)]
enum Policy {
    /// One session for each connection, as without a pooler or in session mode.
    Own,
    /// The session that was used last, as PgBouncer does by default.
    LastUsed,
    /// This many sessions in turn, as PgBouncer does with `server_round_robin`.
    InTurn(usize),
    /// A random one of this many sessions, as with other clients of the pooler.
    Any(usize),
    /// The session that was returned last. Each is returned some milliseconds after its reply.
    ReturnedLate,
    /// One session, which closes its statements after each transaction.
    Forgetful,
    /// The session of a lock that the connection holds, else the one that was used last.
    Pinned,
    /// One session for each connection, but another one for the second under the test lock.
    ExchangedUnderLock,
    /// One session for each connection, on two servers.
    TwoServers,
    /// The same, with equal process ids.
    TwoServersWithEqualPids,
}

/// Pooler with its sessions and scripted failures.
struct Pooler {
    policy: Policy,
    /// Levels of the test lock, by session.
    levels: HashMap<usize, u32>,
    /// The session that a connection keeps.
    pins: HashMap<bool, usize>,
    /// The last session of the first connection, with two sessions.
    session_of_first: usize,
    last_session: usize,
    /// The check has paused since the last request.
    paused: bool,
    requests: usize,
    /// The requests that fail, counted from 0.
    fails: Vec<usize>,
    /// The code of failures. `None`: the client hides it.
    code: Option<&'static str>,
    /// The code with which a script fails.
    reveals: Option<&'static str>,
    /// The request at which the client finds that a session has ended.
    ends: Option<usize>,
    /// The request before which all locks are released.
    frees: Option<usize>,
    server_signs: ServerSigns,
    random: fastrand::Rng,
    terminated: HashSet<usize>,
}

impl Pooler {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            levels: HashMap::new(),
            pins: HashMap::new(),
            session_of_first: 0,
            last_session: 0,
            paused: false,
            requests: 0,
            fails: Vec::new(),
            code: Some("XX000"),
            reveals: None,
            ends: None,
            frees: None,
            server_signs: ServerSigns::NONE,
            random: fastrand::Rng::with_seed(7),
            terminated: HashSet::new(),
        }
    }

    fn session_for(&mut self, side: Side) -> usize {
        let number = usize::from(side == Side::Second);
        match self.policy {
            Policy::Own | Policy::TwoServers | Policy::TwoServersWithEqualPids => number,
            Policy::LastUsed | Policy::Forgetful => 0,
            Policy::ReturnedLate => {
                // Without a pause the session of the other connection is not returned yet.
                if std::mem::take(&mut self.paused) {
                    self.session_of_first = self.last_session ^ number;
                }
                self.last_session = self.session_of_first ^ number;
                self.last_session
            }
            Policy::ExchangedUnderLock => {
                // After the first two requests of the second connection under the lock.
                let is_exchanged = side == Side::Second && self.requests > READS + 3;
                if is_exchanged { 2 } else { number }
            }
            Policy::InTurn(sessions) => self.requests % sessions,
            Policy::Any(sessions) => self.random.usize(..sessions),
            Policy::Pinned => match self.pins.get(&(side == Side::First)) {
                Some(session) => *session,
                None => usize::from(self.pins.values().any(|session| *session == 0)),
            },
        }
    }

    fn query(&mut self, side: Side, statement: &Statement) -> Result<LockReply, SessionError> {
        let at = self.session_for(side);
        let request = self.requests;
        self.requests += 1;
        if self.frees == Some(request) {
            self.levels.clear();
        }
        if self.ends == Some(request) {
            return Err(SessionError::new("closed").with_disconnected(true));
        }
        let is_lost = matches!(self.policy, Policy::Forgetful);
        if self.fails.contains(&request) || is_lost {
            let code = self.code.and_then(SqlState::new);
            return Err(SessionError::new("as the script says").with_code(code));
        }
        let shared_table = !matches!(
            self.policy,
            Policy::TwoServers | Policy::TwoServersWithEqualPids
        );
        let mut others = self.levels.iter().filter(|(other, _)| **other != at);
        let held_by_other = shared_table && others.any(|(_, levels)| *levels > 0);
        let levels = self.levels.entry(at).or_default();
        let is_held = *levels > 0;
        let answer = match statement.kind().unwrap() {
            StatementKind::TryAcquire { refuses, .. }
                if refuses.intersection(self.server_signs) != ServerSigns::NONE =>
            {
                None
            }
            StatementKind::TryAcquire { .. } => {
                *levels += u32::from(!held_by_other);
                Some(!held_by_other)
            }
            StatementKind::IsHeld => Some(is_held),
            StatementKind::ReleaseIfHeld { .. } | StatementKind::Release { .. } => {
                *levels -= u32::from(is_held);
                is_held.then_some(true)
            }
            other => unreachable!("{other:?}"),
        };
        if matches!(self.policy, Policy::Pinned) {
            let is_pinned = *levels > 0;
            let pin = is_pinned.then_some((side == Side::First, at));
            self.pins.retain(|of, _| *of != (side == Side::First));
            self.pins.extend(pin);
        }
        let equal_pids = matches!(self.policy, Policy::TwoServersWithEqualPids);
        Ok(LockReply {
            answer,
            pid: if equal_pids {
                1
            } else {
                i32::try_from(at).unwrap()
            },
            transaction_began: i64::try_from(request).unwrap(),
            server_signs: self.server_signs,
        })
    }

    fn check(&mut self) -> Result<PoolingMode, LockError> {
        let snapshot = SessionSnapshot::idle();
        let mut check = PoolerCheck::new(&snapshot, &snapshot);
        let mut event = Event::Ready;
        loop {
            let action = check.handle(event, Instant::now());
            let side = check.side();
            event = match action {
                Action::Query(statement) => Event::Row(self.query(side, &statement)),
                // A script is never prepared, so no session loses it.
                Action::Script(_) => Event::Ran(self.reveals.map_or(Ok(()), |code| {
                    Err(SessionError::new("revealed").with_code(SqlState::new(code)))
                })),
                Action::Sleep(_) => {
                    self.paused = true;
                    Event::Ready
                }
                Action::Terminate => {
                    let at = self.session_for(side);
                    self.terminated.insert(at);
                    self.levels.remove(&at);
                    Event::Ready
                }
                Action::Done(outcome) => return outcome,
                other => unreachable!("{other:?}"),
            };
        }
    }

    fn holds_nothing(&self) -> bool {
        self.levels.values().all(|levels| *levels == 0)
    }
}

#[test]
fn dedicated_sessions_are_detected() {
    let mut pooler = Pooler::new(Policy::Own);
    assert_eq!(pooler.check().unwrap(), PoolingMode::Dedicated);
    assert!(pooler.holds_nothing() && pooler.terminated.is_empty());
    assert_eq!(pooler.requests, READS + LOCK_STEPS.len());
}

#[test]
fn early_release_of_the_test_lock_is_detected() {
    let mut pooler = Pooler::new(Policy::Own);
    // Before the first connection releases the lock.
    pooler.frees = Some(READS + LOCK_STEPS.len() - 3);
    assert_eq!(pooler.check().unwrap(), PoolingMode::Multiplexed);
    assert!(pooler.holds_nothing());
}

#[test]
fn transaction_poolers_are_detected() {
    let mut policies = vec![Policy::LastUsed, Policy::ReturnedLate];
    policies.extend((1..30).map(Policy::InTurn));
    policies.extend((1..30).map(Policy::Any));
    for policy in policies {
        let mut pooler = Pooler::new(policy);
        assert_eq!(
            pooler.check().unwrap(),
            PoolingMode::Multiplexed,
            "{policy:?}"
        );
        assert!(pooler.holds_nothing(), "{policy:?}");
        assert!(pooler.terminated.is_empty(), "{policy:?}");
    }
}

/// With the SQLSTATE, and with a client that hides it.
#[test]
fn lost_prepared_statements_are_detected() {
    for code in [Some("26000"), Some("42P05"), None] {
        let mut pooler = Pooler::new(Policy::Forgetful);
        pooler.code = code;
        assert_eq!(
            pooler.check().unwrap(),
            PoolingMode::Multiplexed,
            "{code:?}"
        );
    }
}

#[test]
fn pooler_that_pins_lock_holders_is_detected() {
    let mut pooler = Pooler::new(Policy::Pinned);
    assert_eq!(pooler.check().unwrap(), PoolingMode::Pinned);
    assert!(pooler.holds_nothing() && pooler.terminated.is_empty());
}

/// Its process ids are those of dedicated sessions until the lock is held.
#[test]
fn session_exchanged_under_the_lock_is_detected() {
    let mut pooler = Pooler::new(Policy::ExchangedUnderLock);
    assert_eq!(pooler.check().unwrap(), PoolingMode::Pinned);
    assert!(pooler.holds_nothing() && pooler.terminated.is_empty());
}

#[test]
fn two_servers_are_detected() {
    for policy in [Policy::TwoServers, Policy::TwoServersWithEqualPids] {
        let mut pooler = Pooler::new(policy);
        let found = pooler.check().unwrap();
        assert_eq!(found, PoolingMode::DifferentServers, "{policy:?}");
        assert!(pooler.holds_nothing() && pooler.terminated.is_empty());
    }
}

#[test]
fn server_that_grants_everything_is_an_error() {
    let mut pooler = Pooler::new(Policy::Own);
    pooler.server_signs = ServerSigns::COCKROACH_DB;
    let kind = pooler.check().unwrap_err().kind();
    assert_eq!(kind, LockErrorKind::NoMutualExclusion);
    // The sessions of a standby exclude each other.
    pooler.server_signs = ServerSigns::STANDBY;
    assert_eq!(pooler.check().unwrap(), PoolingMode::Dedicated);
}

/// Also if the failed statement was granted the lock.
#[test]
fn failed_check_leaves_no_lock() {
    let mut sound = Pooler::new(Policy::Own);
    let _ = sound.check();
    for fails in 0..sound.requests {
        let mut pooler = Pooler::new(Policy::Own);
        pooler.fails = vec![fails];
        let error = pooler.check().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Database);
        assert!(
            std::error::Error::source(&error).is_some(),
            "failed at {fails}"
        );
        assert!(pooler.holds_nothing(), "failed at {fails}");
        let terminated = if fails >= READS { 2 } else { 0 };
        assert_eq!(pooler.terminated.len(), terminated, "failed at {fails}");
    }
}

/// A hidden error that does not repeat, such as a cancellation, is no sign of a pooler.
#[test]
fn hidden_error_that_passes_is_ignored() {
    for fails in 0..READS {
        let mut pooler = Pooler::new(Policy::Own);
        (pooler.fails, pooler.code) = (vec![fails], None);
        assert_eq!(pooler.check().unwrap(), PoolingMode::Dedicated);
    }
}

#[test]
fn revealed_error_is_that_of_the_check() {
    let mut pooler = Pooler::new(Policy::Own);
    (pooler.fails, pooler.code) = (vec![0], None);
    pooler.reveals = Some("42883");
    let error = pooler.check().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Unsupported);
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("revealed"));
}

/// Its error has no SQLSTATE, as the errors of a pooler may have none.
#[test]
fn session_that_ends_is_no_sign_of_a_pooler() {
    // A request that is repeated comes once more.
    for (policy, hidden, ends) in [
        (Policy::Own, Some(0), 2),
        (Policy::Own, Some(0), READS + 1),
        (Policy::LastUsed, None, READS),
    ] {
        let mut pooler = Pooler::new(policy);
        pooler.fails.extend(hidden);
        (pooler.code, pooler.ends) = (None, Some(ends));
        let kind = pooler.check().map_err(|error| error.kind());
        assert_eq!(kind, Err(LockErrorKind::Database), "{policy:?}");
    }
}

/// Without such a sign, the same error is that of the server.
#[test]
fn error_after_a_sign_of_a_pooler_is_that_pooler() {
    for (policy, hidden, is_pooler) in [
        (Policy::Own, None, false),
        (Policy::Own, Some(0), true),
        (Policy::LastUsed, None, true),
        (Policy::InTurn(2), None, true),
    ] {
        let mut pooler = Pooler::new(policy);
        // A request that is repeated comes once more.
        let in_second_part = READS + hidden.iter().count();
        pooler.fails.extend(hidden);
        pooler.fails.push(in_second_part);
        pooler.code = hidden.map_or(Some("XX000"), |_| None);
        match pooler.check() {
            Ok(found) => assert!(is_pooler && found == PoolingMode::Multiplexed, "{policy:?}"),
            Err(error) => {
                assert!(!is_pooler, "{policy:?}");
                assert_eq!(error.kind(), LockErrorKind::Database);
            }
        }
        assert!(pooler.holds_nothing(), "{policy:?}");
    }
}

#[test]
fn sends_nothing_without_postgres() {
    let idle = SessionSnapshot::idle;
    let sqlite = || SessionSnapshot {
        backend: Backend::Sqlite,
        ..idle()
    };
    let at = |transaction| SessionSnapshot {
        transaction,
        ..idle()
    };
    let decided = |first, second| {
        let mut check = PoolerCheck::new(&first, &second);
        match check.handle(Event::Ready, Instant::now()) {
            Action::Done(outcome) => outcome.map_err(|error| error.kind()),
            other => unreachable!("{other:?}"),
        }
    };
    for (first, second) in [(sqlite(), sqlite()), (sqlite(), idle()), (idle(), sqlite())] {
        assert_eq!(decided(first, second), Ok(PoolingMode::NoLocks));
    }
    for open in [TransactionState::open(1), TransactionState::in_test(0)] {
        let refused = Err(LockErrorKind::InTransaction);
        assert_eq!(decided(at(open), idle()), refused);
        assert_eq!(decided(idle(), at(open)), refused);
        let open_on_sqlite = SessionSnapshot {
            transaction: open,
            ..sqlite()
        };
        assert_eq!(decided(open_on_sqlite, sqlite()), refused);
    }
    let broken = || at(TransactionState::broken());
    assert_eq!(decided(broken(), idle()), Err(LockErrorKind::Database));
    assert_eq!(decided(idle(), broken()), Err(LockErrorKind::Database));
}

#[test]
fn require_reports_the_error_kind() {
    let kind = |sessions: PoolingMode| {
        let required = sessions.require_dedicated_sessions();
        required.err().map(|error| error.kind())
    };
    assert_eq!(kind(PoolingMode::Dedicated), None);
    for sessions in [PoolingMode::Multiplexed, PoolingMode::Pinned] {
        assert_eq!(kind(sessions), Some(LockErrorKind::SessionChanged));
        assert!(sessions.require_transaction_locks().is_ok());
    }
    for sessions in [PoolingMode::DifferentServers, PoolingMode::NoLocks] {
        assert_eq!(kind(sessions), Some(LockErrorKind::NoMutualExclusion));
    }
}

/// The check of a pooler that keeps the session of a lock holder met no other session.
#[test]
fn required_sessions_do_not_report_a_granted_lock() {
    for sessions in [PoolingMode::Multiplexed, PoolingMode::Pinned] {
        let required = sessions.require_dedicated_sessions();
        let message = required.unwrap_err().to_string();
        assert!(message.contains("transaction pooler"), "{message}");
        assert!(!message.contains("granted"), "{message}");
    }
}
