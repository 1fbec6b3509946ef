//! Tests of the suite: adapters with a planted defect must fail it.

use advisory_locking::session::{
    Backend, LockReply, LockSession, Row, Script, ServerSigns, SessionError, Statement,
    StatementKind, TransactionState,
};
use advisory_locking::{LockErrorKind, LockMode};

use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};
use crate::cases::{self, assert_granted_and_released, block};
use crate::fixture::{Fixture, Harness, LockTable};
use crate::harness::model::{self, ModelHarness};
use testkit::model::{Fault, ModelSession};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Defect {
    /// Grants every lock.
    DoesNotExclude,
    /// Reports a release without sending it.
    DoesNotRelease,
    /// Does not release a lock that was acquired by a wait which reported a failure.
    LeaksAfterFailedWait,
    /// Reuses a connection in an unknown state.
    DoesNotTerminate,
}

struct FaultyAdapter {
    defect: Defect,
    model: ModelHarness,
}

struct FaultySession {
    defect: Defect,
    session: ModelSession,
}

fn faulty_adapter(defect: Defect) -> Box<dyn Harness> {
    let model = model::showing_codes();
    Box::new(FaultyAdapter { defect, model })
}

impl Harness for FaultyAdapter {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        let mut session = self.model.model.connect();
        if self.defect == Defect::LeaksAfterFailedWait {
            // The second actor's wait, which follows its try.
            session.faults.plan(1, Fault::DoneButReported("40P01"));
        }
        let defect = self.defect;
        Box::new(move |channel| {
            actor_blocking::connection(&mut FaultySession { defect, session }, channel)
        })
    }

    fn lock_table(&self) -> Option<&dyn LockTable> {
        self.model.lock_table()
    }
}

impl Client for FaultySession {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        self.session.run_sql(command)
    }
}

impl LockSession for FaultySession {
    fn session_backend(&mut self) -> Backend {
        self.session.session_backend()
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.session.session_transaction_state()
    }

    fn session_begin(&mut self) -> Result<(), SessionError> {
        self.session.session_begin()
    }

    fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        self.session.session_commit(check)
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.session.session_rollback()
    }

    fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let pid = self.session.pid();
        let faulty_reply = |answer| {
            Ok(Row::from(LockReply {
                answer,
                pid,
                transaction_began: 0,
                server_signs: ServerSigns::NONE,
            }))
        };
        match (self.defect, statement.kind()) {
            (Defect::DoesNotExclude, Some(StatementKind::TryAcquire { .. })) => {
                faulty_reply(Some(true))
            }
            (Defect::DoesNotRelease, Some(StatementKind::Release { .. })) => {
                faulty_reply(Some(true))
            }
            (Defect::LeaksAfterFailedWait, Some(StatementKind::ReleaseIfHeld { .. })) => {
                faulty_reply(None)
            }
            _ => self.session.session_query(statement),
        }
    }

    fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        let terminates = matches!(script, Script::Terminate { .. });
        if terminates && self.defect == Defect::DoesNotTerminate {
            return Err(SessionError::new("not sent").with_disconnected(true));
        }
        self.session.session_execute(script)
    }

    fn session_mark_broken(&mut self) {
        if self.defect != Defect::DoesNotTerminate {
            self.session.session_mark_broken();
        }
    }
}

/// A wait that is granted and reported as a deadlock.
fn a_wait_granted_and_reported_as_failed(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    // With plain SQL, because a planned fault counts the library's requests.
    first.run_sql(SqlCommand::TryLock(key.raw(), LockMode::Exclusive));
    second.start_acquire(&key, block(cases::LONG));
    fixture.until_queued(&key, 1);
    first.run_sql(SqlCommand::UnlockAll);
    assert_eq!(second.finish(), Outcome::Failed(LockErrorKind::Deadlock));
}

#[test]
#[should_panic(expected = "holders of")]
fn a_lock_that_does_not_exclude_is_caught() {
    Fixture::run(
        faulty_adapter(Defect::DoesNotExclude),
        cases::exclusion::a_second_session_is_refused,
    );
}

#[test]
#[should_panic(expected = "holders of")]
fn a_lock_that_is_not_released_is_caught() {
    Fixture::run(
        faulty_adapter(Defect::DoesNotRelease),
        cases::exclusion::a_second_session_is_refused,
    );
}

#[test]
#[should_panic(expected = "still held or waited for after the case")]
fn a_lock_left_behind_at_the_end_is_caught() {
    Fixture::run(faulty_adapter(Defect::DoesNotRelease), |fixture| {
        let key = fixture.key("key");
        assert_granted_and_released(&fixture.actor(), &key);
    });
}

#[test]
#[should_panic(expected = "still held or waited for after the case")]
fn a_lock_leaked_by_a_failed_wait_is_caught() {
    Fixture::run(
        faulty_adapter(Defect::LeaksAfterFailedWait),
        a_wait_granted_and_reported_as_failed,
    );
}

#[test]
#[should_panic(expected = "holders of")]
fn a_connection_that_is_not_terminated_is_caught() {
    Fixture::run(
        faulty_adapter(Defect::DoesNotTerminate),
        cases::releasing::a_transaction_left_open,
    );
}
