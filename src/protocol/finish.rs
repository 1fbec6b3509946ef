//! End of a transaction with its lock.
//!
//! # Implementation details
//!
//! Compares the depth of the client's transactions with the depth at the grant:
//!
//! | depth | meaning | next |
//! |---|---|---|
//! | equal | the client sees the transaction of the lock | commit with a check, or roll back |
//! | greater | the body left a transaction open | check; terminate |
//! | unknown, because the connection is marked as broken | the session may have ended | the same |
//! | smaller | the body ended the transaction itself | roll back one that the client does not see; `NotHeld`, `TransactionPrepared` |
//!
//! The depth alone does not show that the body ended the transaction and began another one. So the
//! message of the commit begins with a check on the server, which compares the start of the
//! transaction with that of the grant. If it differs, the check fails, and the message with it:
//! nothing is committed.
//!
//! The meanings of a failed commit:
//!
//! | error | meaning | kind |
//! |---|---|---|
//! | of the check | the body ended the transaction of the lock | `NotHeld`, `TransactionPrepared` |
//! | the server rejected the commit, or ended the session before it | rolled back | `CommitFailed` |
//! | the session was lost before the client sent the commit | rolled back | `CommitFailed`; terminate |
//! | the session was lost | committed or rolled back | `CommitUnknown`; terminate |
//! | the session was lost in a savepoint | rolled back with the outer transaction | `CommitFailed`; terminate |

use std::time::Instant;

use super::{Action, Event, Grant, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::session::{Script, SessionError, Statement, StatementKind, TransactionState};

/// Machine that ends the transaction of [`BeginAndAcquire`](super::BeginAndAcquire): commits it if
/// the body succeeded, otherwise rolls it back.
#[derive(Debug)]
pub(crate) struct FinishTransaction {
    grant: Grant,
    /// The body succeeded.
    commits: bool,
    transaction: TransactionState,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    CheckingLeftOpen,
    Committing,
    RollingBackUnknown,
    CheckingForPrepared,
    RollingBack,
    Terminating(LockError),
    Finished,
}

type NextAction = Action<Result<(), LockError>>;

impl FinishTransaction {
    pub(crate) fn new(grant: Grant, commits: bool, snapshot: SessionSnapshot) -> Self {
        Self {
            grant,
            commits,
            transaction: snapshot.transaction,
            state: State::Start,
        }
    }

    /// Returns `true` if the end of the transaction releases the lock. The commit of a savepoint
    /// does not: the outer transaction holds the lock then.
    pub(crate) const fn releases(grant: &Grant, commits: bool) -> bool {
        !commits || grant.depth <= 1
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_key(&self.grant.key)
    }

    fn terminate(&mut self, error: LockError) -> NextAction {
        self.state = State::Terminating(error);
        Action::Terminate
    }

    /// Returns the script that fails unless the session is in the transaction of the grant. `None`
    /// on a backend without locks.
    fn check(&self) -> Option<Script> {
        self.grant.pid?;
        Some(Script::CheckTransaction {
            key: self.grant.key.raw(),
            mode: self.grant.mode,
            transaction_began: self.grant.transaction_began?,
            in_savepoint: self.transaction.is_savepoint(),
        })
    }

    fn start(&mut self) -> NextAction {
        // A broken connection reports depth 0, as if the body ended the transaction.
        let is_broken = self.transaction.is_broken();
        if is_broken || self.transaction.depth() > self.grant.depth {
            return match self.check() {
                Some(check) => {
                    self.state = State::CheckingLeftOpen;
                    Action::Script(check)
                }
                None if is_broken => self.terminate(self.error(LockErrorKind::Lost)),
                None => self.terminate(self.error(LockErrorKind::TransactionLeftOpen)),
            };
        }
        if self.transaction.depth() < self.grant.depth {
            // The body ended the transaction. A commit here would end the caller's outer one.
            return if self.grant.pid.is_some() && !self.transaction.is_open_on_server() {
                // It may have begun another one as plain text. Without one, the rollback only
                // warns.
                self.state = State::RollingBackUnknown;
                Action::Script(Script::RollBackTransaction)
            } else {
                self.on_transaction_ended()
            };
        }
        if self.commits {
            self.state = State::Committing;
            Action::Commit(self.check())
        } else {
            self.state = State::RollingBack;
            Action::Rollback
        }
    }

    /// The body ended the transaction. A prepared transaction holds the lock until its end.
    fn on_transaction_ended(&mut self) -> NextAction {
        if self.grant.pid.is_none() {
            return Action::Done(Err(self.error(LockErrorKind::NotHeld)));
        }
        self.state = State::CheckingForPrepared;
        let kind = StatementKind::IsHeldByPreparedTransaction;
        Action::Query(Statement::new(kind, &self.grant.key, self.grant.mode))
    }

    fn on_checked_for_prepared(&self, event: Event) -> LockError {
        // If the query fails, `NotHeld` is still true of this session.
        let prepared = event.row().is_ok_and(|row| row.answer == Some(true));
        self.error(if prepared {
            LockErrorKind::TransactionPrepared
        } else {
            LockErrorKind::NotHeld
        })
    }

    fn on_commit_failed(&mut self, error: SessionError) -> NextAction {
        if error.is_other_transaction() {
            return self.on_transaction_ended();
        }
        let may_be_committed = error.may_be_committed();
        let is_lost = may_be_committed || error.is_lost_before_commit();
        let failed = self.error(if may_be_committed && !self.transaction.is_savepoint() {
            LockErrorKind::CommitUnknown
        } else {
            LockErrorKind::CommitFailed
        });
        let failed = failed.with_source(error.into_source());
        if is_lost {
            return self.terminate(failed);
        }
        // The port guarantees that a failed commit ended the transaction, which releases the lock.
        // So there is nothing to roll back or to terminate.
        Action::Done(Err(failed))
    }
}

impl Machine for FinishTransaction {
    type Output = Result<(), LockError>;

    fn session_pid(&self) -> Option<i32> {
        self.grant.pid
    }

    fn depth_of_caller(&self) -> Option<u32> {
        self.grant.depth_of_caller()
    }

    fn handle(&mut self, event: Event, _now: Instant) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Start => self.start(),
            State::CheckingLeftOpen => {
                let kind = match event.ran() {
                    Err(error) if error.is_disconnected() => LockErrorKind::Lost,
                    Err(error) if error.is_other_transaction() => LockErrorKind::NotHeld,
                    _ => LockErrorKind::TransactionLeftOpen,
                };
                self.terminate(self.error(kind))
            }
            State::Committing => match event.ran() {
                Ok(()) => Action::Done(Ok(())),
                Err(error) => self.on_commit_failed(error),
            },
            State::RollingBackUnknown => match event.ran() {
                Ok(()) => self.on_transaction_ended(),
                Err(_) => self.terminate(self.error(LockErrorKind::NotHeld)),
            },
            State::CheckingForPrepared => Action::Done(Err(self.on_checked_for_prepared(event))),
            State::RollingBack => match event.ran() {
                Ok(()) => Action::Done(Ok(())),
                Err(error) => self.terminate(
                    self.error(LockErrorKind::Database)
                        .with_context("the rollback of the transaction under the lock failed, so the session was terminated")
                        .with_source(error.into_source()),
                ),
            },
            State::Terminating(error) => Action::Done(Err(error)),
            State::Finished => Action::Done(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: i32 = 7;

    /// Returns the first action after a body, for a lock that was granted at depth 1.
    fn first_action(
        pid: Option<i32>,
        transaction: TransactionState,
    ) -> (FinishTransaction, NextAction) {
        let snapshot = SessionSnapshot {
            transaction,
            ..SessionSnapshot::idle()
        };
        let mut machine = FinishTransaction::new(Grant::of_session(pid, 1), true, snapshot);
        let action = machine.handle(Event::Ready, Instant::now());
        (machine, action)
    }

    #[test]
    fn termination_names_the_session_of_the_grant() {
        for transaction in [TransactionState::open(2), TransactionState::broken()] {
            let (mut machine, action) = first_action(Some(PID), transaction);
            assert!(matches!(action, Action::Script(_)), "{action:?}");
            let action = machine.handle(Event::Ran(Ok(())), Instant::now());
            assert!(matches!(action, Action::Terminate), "{action:?}");
            assert_eq!(machine.session_pid(), Some(PID));
        }
    }

    /// A backend without locks has nothing to check.
    #[test]
    fn transaction_left_open_is_reported_without_locks() {
        for (transaction, kind) in [
            (
                TransactionState::open(2),
                LockErrorKind::TransactionLeftOpen,
            ),
            (TransactionState::broken(), LockErrorKind::Lost),
        ] {
            let (mut machine, action) = first_action(None, transaction);
            assert!(matches!(action, Action::Terminate), "{action:?}");
            match machine.handle(Event::Ready, Instant::now()) {
                Action::Done(Err(error)) => assert_eq!(error.kind(), kind),
                other => unreachable!("{other:?}"),
            }
        }
    }

    /// The transaction around a savepoint ends with the session.
    #[test]
    fn session_lost_in_a_savepoint_commits_nothing() {
        for (depth, kind) in [
            (1, LockErrorKind::CommitUnknown),
            (2, LockErrorKind::CommitFailed),
        ] {
            let snapshot = SessionSnapshot {
                transaction: TransactionState::open(depth),
                ..SessionSnapshot::idle()
            };
            let grant = Grant::of_session(Some(PID), depth);
            let mut machine = FinishTransaction::new(grant, true, snapshot);
            let action = machine.handle(Event::Ready, Instant::now());
            assert!(matches!(action, Action::Commit(_)), "{action:?}");
            let lost = SessionError::new("closed").with_disconnected(true);
            let action = machine.handle(Event::Ran(Err(lost)), Instant::now());
            assert!(matches!(action, Action::Terminate), "{action:?}");
            match machine.handle(Event::Ready, Instant::now()) {
                Action::Done(Err(error)) => assert_eq!(error.kind(), kind),
                other => unreachable!("{other:?}"),
            }
        }
    }

    /// The commit of a savepoint keeps a lock until the outermost transaction ends.
    #[test]
    fn savepoint_releases_by_its_rollback_only() {
        for (depth, commits, releases) in [
            (1, true, true),
            (1, false, true),
            (2, true, false),
            (2, false, true),
        ] {
            let grant = Grant::of_session(Some(PID), depth);
            assert_eq!(FinishTransaction::releases(&grant, commits), releases);
        }
    }
}
