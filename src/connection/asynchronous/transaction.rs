//! Transaction with a lock around an async body.

use std::pin::pin;

use crate::combine_results::combine_results;
use crate::driver::asynchronous::{TerminateIfArmed, drive_acquire, drive_release};
use crate::driver::run_in_drop;
use crate::error::LockError;
use crate::events::GrantRecord;
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::protocol::{BeginAndAcquire, FinishTransaction, Grant};
use crate::session::{AsyncLockBody, AsyncLockSession};

/// Begins a transaction and acquires its transaction-level lock.
pub(super) async fn begin_and_acquire<S: AsyncLockSession>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
) -> Result<Grant, LockError> {
    let scope = LockScope::Transaction;
    drive_acquire(session, key, options, scope, BeginAndAcquire::new).await
}

/// Runs a body in the transaction that [`begin_and_acquire`] began, then commits or rolls back.
pub(super) async fn run_in_transaction<S, T, E, F>(
    session: &mut S,
    grant: Grant,
    body: F,
) -> Result<T, E>
where
    S: AsyncLockSession,
    F: AsyncLockBody<S, T, E>,
    E: From<LockError> + Send,
    T: Send,
{
    let span = grant.span();
    let mut scope = TransactionScope {
        session,
        grant: Some(grant),
    };
    let result = span.run(pin!(body(scope.session))).await;
    drop(span);
    let ended = scope.finish(result.is_ok()).await;
    combine_results(result, ended)
}

/// Drop guard of the open transaction. A destructor cannot await a rollback. So the session is
/// terminated if the body panics or its future is dropped.
struct TransactionScope<'s, S: AsyncLockSession> {
    session: &'s mut S,
    grant: Option<Grant>,
}

impl<S: AsyncLockSession> TransactionScope<'_, S> {
    async fn finish(&mut self, commits: bool) -> Result<(), LockError> {
        // Before the grant is taken: after a drop at this point, the scope rolls back.
        self.session.session_await_rollbacks().await;
        // Taken before the await: after a drop at this point the driver terminates the session.
        let Some(mut grant) = self.grant.take() else {
            return Ok(());
        };
        if !FinishTransaction::releases(&grant, commits) {
            // The outer transaction holds the lock until it ends, which the crate does not see.
            grant.record = None;
        }
        drive_release(self.session, grant, |grant, snapshot| {
            FinishTransaction::new(grant, commits, snapshot)
        })
        .await
    }
}

impl<S: AsyncLockSession> Drop for TransactionScope<'_, S> {
    fn drop(&mut self) {
        let Some(mut grant) = self.grant.take() else {
            return;
        };
        let (pid, depth) = (grant.pid, grant.depth_of_caller());
        // Its drop sends the event of a termination, also if the client panics.
        let release = grant.record.take().map(GrantRecord::releasing);
        run_in_drop(|| {
            let mut clean_up = TerminateIfArmed::new(&mut *self.session, pid);
            let is_queued = clean_up.roll_back_to(depth);
            #[cfg(feature = "testing")]
            if !is_queued {
                crate::testing::end_session(grant, &*clean_up);
            }
            if is_queued {
                if let Some(release) = release {
                    release.queued();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::asynchronous::tests::{PanickingSession, assert_panics_once};

    #[test]
    fn client_that_panics_twice_does_not_abort() {
        let mut session = PanickingSession::default();
        assert_panics_once(|| {
            let _scope = TransactionScope {
                session: &mut session,
                grant: Some(Grant::of_session(Some(1), 1)),
            };
            panic!("the body panics");
        });
        assert_eq!(session.terminated, 1);
    }
}

#[cfg(test)]
#[cfg(feature = "lock-manager")]
mod savepoint_tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use crate::events::RequestRecord;
    use crate::observer::{HoldEnd, HoldOutcome, LockObserver, ObservedLock};
    use crate::session::{Backend, Script, SessionError, TransactionState};

    /// Session in this number of transactions and savepoints.
    struct OpenSession(u32);

    impl AsyncLockSession for OpenSession {
        fn session_backend(&mut self) -> Backend {
            Backend::Sqlite
        }

        fn session_transaction_state(&mut self) -> TransactionState {
            TransactionState::open(self.0)
        }

        fn session_mark_broken(&mut self) {}

        fn session_start_terminate(&mut self, _pid: Option<i32>) {}

        async fn session_begin(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_rollback(&mut self) -> Result<(), SessionError> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Outcomes(Mutex<Vec<HoldOutcome>>);

    impl LockObserver for Outcomes {
        fn hold_ended(&self, _lock: &ObservedLock, end: &HoldEnd) {
            self.0.lock().unwrap().push(end.outcome);
        }
    }

    /// The outer transaction holds the lock after the commit of a savepoint.
    #[test]
    fn commit_of_a_savepoint_reports_no_release() {
        let observer: &'static Outcomes = Box::leak(Box::default());
        for (depth, commits, outcome) in [
            (1, true, HoldOutcome::Released),
            (2, true, HoldOutcome::Unobserved),
            (2, false, HoldOutcome::Released),
        ] {
            let mut grant = Grant::of_session(None, depth);
            let (options, now) = (LockOptions::no_wait(), Instant::now());
            let scope = LockScope::Transaction;
            let mut request = RequestRecord::new(&grant.key, &options, scope, None, now);
            request.observe_with(observer);
            grant.record = request.granted(None, now);
            let mut session = OpenSession(depth);
            let mut scope = TransactionScope {
                session: &mut session,
                grant: Some(grant),
            };
            pollster::block_on(scope.finish(commits)).unwrap();
            drop(scope);
            let reported = observer.0.lock().unwrap().pop();
            assert_eq!(reported, Some(outcome), "{depth} {commits}");
        }
    }
}
