//! The pooler check against a simulated pooler.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::key::RawLockKey;
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
    /// One session, reset after each transaction.
    Forgetful,
    /// One session for each connection, on two servers.
    TwoServers,
}

#[derive(Default)]
struct Session {
    mark: Option<u64>,
    levels: HashMap<RawLockKey, u32>,
}

/// Pooler with its sessions and scripted failures.
struct Pooler {
    policy: Policy,
    sessions: HashMap<usize, Session>,
    requests: usize,
    /// The request that fails, counted from 0.
    fails: Option<usize>,
    /// The request before which all locks are released.
    frees: Option<usize>,
    random: fastrand::Rng,
    terminated: HashSet<usize>,
}

impl Pooler {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            sessions: HashMap::new(),
            requests: 0,
            fails: None,
            frees: None,
            random: fastrand::Rng::with_seed(7),
            terminated: HashSet::new(),
        }
    }

    fn session_for(&mut self, side: Side) -> usize {
        match self.policy {
            Policy::Own | Policy::TwoServers => usize::from(side == Side::Second),
            Policy::LastUsed | Policy::Forgetful => 0,
            Policy::InTurn(sessions) => self.requests % sessions,
            Policy::Any(sessions) => self.random.usize(..sessions),
        }
    }

    fn run(&mut self, side: Side, script: &Script) -> Result<(), SessionError> {
        let at = self.session_for(side);
        let request = self.requests;
        self.requests += 1;
        if self.frees == Some(request) {
            let sessions = self.sessions.values_mut();
            sessions.for_each(|session| session.levels.clear());
        }
        if self.fails == Some(request) {
            return Err(SessionError::new("as the script says"));
        }
        let ScriptKind::PoolerCheck(step) = script.kind() else {
            unreachable!("a check sends nothing else: {script:?}")
        };
        let key = script.key();
        let shared_table = !matches!(self.policy, Policy::TwoServers);
        let held_by_other = shared_table
            && self.sessions.iter().any(|(other, session)| {
                *other != at && session.levels.get(&key).is_some_and(|levels| *levels > 0)
            });
        let session = self.sessions.entry(at).or_default();
        let levels = session.levels.entry(key).or_default();
        let found = match step {
            PoolerCheckStep::SetMarker { mark } => {
                session.mark = Some(mark);
                true
            }
            PoolerCheckStep::CheckMarker { mark } => session.mark == Some(mark),
            PoolerCheckStep::AcquireTestLock => {
                *levels += u32::from(!held_by_other);
                !held_by_other
            }
            PoolerCheckStep::ExpectContention => held_by_other,
            PoolerCheckStep::ReleaseTestLock => {
                let held = *levels > 0;
                *levels -= u32::from(held);
                held
            }
        };
        if matches!(self.policy, Policy::Forgetful) {
            self.sessions.clear();
        }
        if found {
            Ok(())
        } else {
            let code = SqlState::new(PoolerCheckStep::CHECK_FAILED_SQLSTATE);
            Err(SessionError::new("a contradiction").with_code(code))
        }
    }

    fn check(&mut self) -> Result<PoolingMode, LockError> {
        let snapshot = SessionSnapshot::idle();
        let mut check = PoolerCheck::new(&snapshot, &snapshot);
        let mut event = Event::Ready;
        loop {
            let action = check.handle(event, Instant::now());
            let side = check.side();
            event = match action {
                Action::Script(script) => Event::Ran(self.run(side, &script)),
                Action::Terminate => {
                    let at = self.session_for(side);
                    self.terminated.insert(at);
                    self.sessions.remove(&at);
                    Event::Ready
                }
                Action::Done(outcome) => return outcome,
                other => unreachable!("{other:?}"),
            };
        }
    }

    fn holds_nothing(&self) -> bool {
        self.sessions
            .values()
            .all(|session| session.levels.values().all(|levels| *levels == 0))
    }
}

#[test]
fn dedicated_sessions_are_detected() {
    let mut pooler = Pooler::new(Policy::Own);
    assert_eq!(pooler.check().unwrap(), PoolingMode::Dedicated);
    assert!(pooler.holds_nothing() && pooler.terminated.is_empty());
    // Two markers, each read twelve times; a lock that is acquired, contended and released.
    assert_eq!(pooler.requests, 2 + 2 * 12 + 3);
}

/// The test lock is gone at its release, so either session may hold it.
#[test]
fn early_release_of_the_test_lock_is_detected() {
    let mut sound = Pooler::new(Policy::Own);
    let _ = sound.check();
    let mut pooler = Pooler::new(Policy::Own);
    pooler.frees = Some(sound.requests - 1);
    assert_eq!(pooler.check().unwrap(), PoolingMode::Multiplexed);
    assert_eq!(pooler.terminated.len(), 2);
}

#[test]
fn transaction_poolers_are_detected() {
    let mut policies = vec![Policy::LastUsed, Policy::Forgetful];
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
    }
}

#[test]
fn two_servers_are_detected() {
    let mut pooler = Pooler::new(Policy::TwoServers);
    assert_eq!(pooler.check().unwrap(), PoolingMode::DifferentServers);
    assert!(pooler.terminated.is_empty());
}

/// Also if the failed statement was granted the lock.
#[test]
fn failed_check_leaves_no_lock() {
    let mut sound = Pooler::new(Policy::Own);
    let _ = sound.check();
    for fails in 0..sound.requests {
        let mut pooler = Pooler::new(Policy::Own);
        pooler.fails = Some(fails);
        let error = pooler.check().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Database);
        assert!(
            std::error::Error::source(&error).is_some(),
            "failed at {fails}"
        );
        assert!(pooler.holds_nothing(), "failed at {fails}");
        let may_hold = fails + 3 >= sound.requests;
        let terminated = if may_hold { 2 } else { 0 };
        assert_eq!(pooler.terminated.len(), terminated, "failed at {fails}");
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
    assert_eq!(
        kind(PoolingMode::Multiplexed),
        Some(LockErrorKind::SessionChanged)
    );
    for sessions in [PoolingMode::DifferentServers, PoolingMode::NoLocks] {
        assert_eq!(kind(sessions), Some(LockErrorKind::NoMutualExclusion));
    }
}
