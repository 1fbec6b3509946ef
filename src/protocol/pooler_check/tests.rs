use std::collections::{HashMap, HashSet};

use super::*;
use crate::key::RawLockKey;
use crate::session::{SqlState, TransactionState};

/// Which of the pooler's sessions the next statement of a connection gets.
#[derive(Clone, Copy, Debug)]
enum Policy {
    /// One for each connection, as without a pooler or with one that pools sessions.
    Own,
    /// The one that was used last, as PgBouncer does on its own.
    LastUsed,
    /// One of so many after the other, as PgBouncer does with `server_round_robin`.
    InTurn(usize),
    /// Any of so many, because others use the pooler too.
    Any(usize),
    /// The same one, and forgets everything after each transaction.
    Forgetful,
    /// One each, on two servers.
    TwoServers,
}

#[derive(Default)]
struct Session {
    mark: Option<u64>,
    levels: HashMap<RawLockKey, u32>,
}

/// A pooler with its sessions, and a script of failures.
struct Pooler {
    policy: Policy,
    sessions: HashMap<usize, Session>,
    requests: usize,
    /// The request that fails, counted from 0.
    fails: Option<usize>,
    /// The request before which every lock goes by itself.
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
fn kept_sessions_are_known() {
    let mut pooler = Pooler::new(Policy::Own);
    assert_eq!(pooler.check().unwrap(), PoolingMode::Dedicated);
    assert!(pooler.holds_nothing() && pooler.terminated.is_empty());
    // Two marks, each looked for twelve times, and a lock that is taken, refused and given back.
    assert_eq!(pooler.requests, 2 + 2 * 12 + 3);
}

/// What was granted is not there any more when it is given back: it may be left in either session.
#[test]
fn a_lock_that_goes_by_itself_is_known() {
    let mut sound = Pooler::new(Policy::Own);
    let _ = sound.check();
    let mut pooler = Pooler::new(Policy::Own);
    pooler.frees = Some(sound.requests - 1);
    assert_eq!(pooler.check().unwrap(), PoolingMode::Multiplexed);
    assert_eq!(pooler.terminated.len(), 2);
}

#[test]
fn pooled_transactions_are_known() {
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
fn two_servers_are_known() {
    let mut pooler = Pooler::new(Policy::TwoServers);
    assert_eq!(pooler.check().unwrap(), PoolingMode::DifferentServers);
    assert!(pooler.terminated.is_empty());
}

/// Whatever fails, and also where it was not noticed that the lock was granted.
#[test]
fn a_failure_leaves_no_lock() {
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
fn nothing_is_sent_where_there_is_nothing_to_probe() {
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
fn what_is_required_is_told_by_kind() {
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
