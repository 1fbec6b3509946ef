//! The suite must bite: adapters that lie have to fail it.

use advisory_locking::session::{
    Backend, BatchReply, LockBatch, LockReply, LockSession, Script, SessionError, Statement,
    StatementKind, TransactionState,
};
use advisory_locking::{LockErrorKind, LockKey, LockMode};

use crate::actor::{Mail, Outcome, Raw};
use crate::cases::{self, assert_granted_and_released, block};
use crate::harness::model::{self, ModelHarness};
use crate::pg_model::{Fault, ModelSession};
use crate::serve::{self, Client};
use crate::stage::{Harness, Held, Stage};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lie {
    /// Every lock is granted.
    DoesNotExclude,
    /// A release is reported and not done.
    DoesNotRelease,
    /// What a failed wait has taken all the same is not given back.
    LeaksAfterAFailedWait,
    /// A connection in an unknown state goes on being used.
    DoesNotCondemn,
}

struct Liar {
    lie: Lie,
    model: ModelHarness,
}

struct LyingSession {
    lie: Lie,
    session: ModelSession,
}

fn liar(lie: Lie) -> Box<dyn Harness> {
    let model = model::showing_codes();
    Box::new(Liar { lie, model })
}

impl Harness for Liar {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        let mut session = self.model.model.connect();
        if self.lie == Lie::LeaksAfterAFailedWait {
            // The wait of the second actor, after its try.
            session.faults.plan(1, Fault::DoneButReported("40P01"));
        }
        let lie = self.lie;
        Box::new(move |mail| serve::connection(&mut LyingSession { lie, session }, mail))
    }

    fn holders(&self, key: &LockKey) -> Vec<Held> {
        self.model.holders(key)
    }

    fn excludes(&self) -> bool {
        true
    }

    fn terminate(&self, pid: i32) {
        self.model.terminate(pid);
    }

    fn cancel(&self, pid: i32) {
        self.model.cancel(pid);
    }
}

impl Client for LyingSession {
    fn raw(&mut self, raw: Raw) -> Outcome {
        self.session.raw(raw)
    }
}

impl LockSession for LyingSession {
    fn session_backend(&mut self) -> Backend {
        self.session.session_backend()
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.session.session_transaction_state()
    }

    fn session_begin(&mut self) -> Result<(), SessionError> {
        self.session.session_begin()
    }

    fn session_commit(&mut self) -> Result<(), SessionError> {
        self.session.session_commit()
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.session.session_rollback()
    }

    fn session_query(&mut self, statement: &Statement) -> Result<LockReply, SessionError> {
        let pid = self.session.pid();
        let lied = |answer| {
            Ok(LockReply {
                answer,
                pid,
                transaction_began: 0,
            })
        };
        match (self.lie, statement.kind()) {
            (Lie::DoesNotExclude, StatementKind::TryAcquire) => lied(Some(true)),
            (Lie::DoesNotRelease, StatementKind::Release { .. }) => lied(Some(true)),
            (Lie::LeaksAfterAFailedWait, StatementKind::ReleaseIfHeld) => lied(None),
            _ => self.session.session_query(statement),
        }
    }

    fn session_execute(&mut self, batch: &Script) -> Result<(), SessionError> {
        self.session.session_execute(batch)
    }

    fn session_execute_batch(&mut self, round: &LockBatch) -> Result<BatchReply, SessionError> {
        self.session.session_execute_batch(round)
    }

    fn session_terminate(&mut self) {
        if self.lie != Lie::DoesNotCondemn {
            self.session.session_terminate();
        }
    }
}

/// A wait that is granted and reported as a deadlock at the same moment.
fn a_wait_granted_and_reported_as_failed(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    // By hand, because a planned fault counts the library's requests.
    first.raw(Raw::TryLock(key.raw(), LockMode::Exclusive));
    second.start_acquire(&key, block(cases::LONG));
    stage.until_queued(&key, 1);
    first.raw(Raw::UnlockAll);
    assert_eq!(second.finish(), Outcome::Failed(LockErrorKind::Deadlock));
}

#[test]
#[should_panic(expected = "who holds")]
fn a_lock_that_does_not_exclude_is_caught() {
    Stage::play(
        liar(Lie::DoesNotExclude),
        cases::exclusion::a_second_session_is_refused,
    );
}

#[test]
#[should_panic(expected = "who holds")]
fn a_lock_that_is_not_released_is_caught() {
    Stage::play(
        liar(Lie::DoesNotRelease),
        cases::exclusion::a_second_session_is_refused,
    );
}

#[test]
#[should_panic(expected = "still held or waited for after the case")]
fn a_lock_left_behind_at_the_end_is_caught() {
    Stage::play(liar(Lie::DoesNotRelease), |stage| {
        let key = stage.key("key");
        assert_granted_and_released(&stage.actor(), &key);
    });
}

#[test]
#[should_panic(expected = "still held or waited for after the case")]
fn a_lock_leaked_by_a_failed_wait_is_caught() {
    Stage::play(
        liar(Lie::LeaksAfterAFailedWait),
        a_wait_granted_and_reported_as_failed,
    );
}

#[test]
#[should_panic(expected = "who holds")]
fn a_connection_that_is_not_condemned_is_caught() {
    Stage::play(
        liar(Lie::DoesNotCondemn),
        cases::releasing::a_transaction_left_open,
    );
}
