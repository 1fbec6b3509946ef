//! The release of a lock: [`PendingRelease`].
//!
//! The release starts at once. Its future waits for the response, and sends the event of its end.
//! If the future is dropped, the event has the response that has arrived, or says that none has.

use std::time::Instant;

use futures_channel::oneshot::{Canceled, Receiver};

use super::guard::OwnedLockGuard;
use super::lock_handle::LockHandle;
use super::shared::Response;
use crate::error::{LockError, LockErrorKind};
use crate::events::GrantRecord;
use crate::key::LockKey;

/// Releases several locks of one lock manager, and returns the first error.
pub(super) async fn release_all(
    guards: impl IntoIterator<Item = OwnedLockGuard>,
) -> Result<(), LockError> {
    let parts = guards.into_iter().map(OwnedLockGuard::into_parts);
    let (locks, releases): (Vec<_>, Vec<_>) = parts.unzip();
    LockHandle::release_all(locks);
    all_released(releases).await
}

/// Waits until all locks are released, and returns the first error.
async fn all_released(releases: Vec<PendingRelease>) -> Result<(), LockError> {
    let mut result = Ok(());
    for release in releases {
        // The caller gets the first error. The others are awaited too, so that each hold ends with
        // its event.
        result = result.and(release.result().await);
    }
    result
}

/// A release that has started, until its result.
pub(super) struct PendingRelease {
    pub(super) key: LockKey,
    pub(super) response: Receiver<Response>,
    pub(super) record: Option<GrantRecord>,
    /// Result of the release in the lock table of a test.
    #[cfg(feature = "testing")]
    pub(super) simulated: Result<(), LockError>,
}

impl PendingRelease {
    /// Waits for the result. Dropping the future drops the report only.
    pub(super) async fn result(mut self) -> Result<(), LockError> {
        let response = (&mut self.response).await;
        let result = self.read(response);
        if let Some(release) = self.record.take() {
            release.ended(&result, Instant::now());
        }
        result
    }

    fn read(&mut self, response: Result<Response, Canceled>) -> Result<(), LockError> {
        let result = match response {
            Ok(Response::Released(result)) => result,
            // No response: the lock manager has ended, and its sessions have released the lock.
            Ok(Response::Granted(_) | Response::Failed(_) | Response::Closed) | Err(_) => {
                Err(LockErrorKind::Lost)
            }
        };
        #[cfg(feature = "testing")]
        if result.is_ok() {
            return std::mem::replace(&mut self.simulated, Ok(()));
        }
        result.map_err(|kind| LockError::new(kind).with_key(&self.key))
    }
}

impl Drop for PendingRelease {
    fn drop(&mut self) {
        // The release has started, and ends without its caller.
        let Some(release) = self.record.take() else {
            return;
        };
        match self.response.try_recv().transpose() {
            Some(response) => release.ended_without_caller(self.read(response)),
            None => release.queued(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use futures_channel::oneshot;

    use super::*;
    use crate::events::RequestRecord;
    use crate::observer::{HoldEnd, HoldOutcome, LockObserver, ObservedLock};
    use crate::options::{LockOptions, LockScope};

    fn pending(key: i64) -> (oneshot::Sender<Response>, PendingRelease) {
        let (sender, response) = oneshot::channel();
        let release = PendingRelease {
            key: LockKey::from(key),
            response,
            record: None,
            #[cfg(feature = "testing")]
            simulated: Ok(()),
        };
        (sender, release)
    }

    #[test]
    fn release_of_several_locks_awaits_all_despite_an_error() {
        let (senders, releases): (Vec<_>, Vec<_>) = (1..=3).map(pending).unzip();
        let mut released = pin!(all_released(releases));
        let mut context = Context::from_waker(Waker::noop());
        let results = [
            Ok(()),
            Err(LockErrorKind::Lost),
            Err(LockErrorKind::NotHeld),
        ];
        for (sender, result) in senders.into_iter().zip(results) {
            assert!(released.as_mut().poll(&mut context).is_pending());
            drop(sender.send(Response::Released(result)));
        }
        let Poll::Ready(result) = released.as_mut().poll(&mut context) else {
            panic!("all locks are released");
        };
        let error = result.unwrap_err();
        let second = LockKey::from(2);
        assert_eq!(
            (error.kind(), error.key()),
            (LockErrorKind::Lost, Some(&second))
        );
    }

    #[derive(Default)]
    struct Outcomes(Mutex<Vec<HoldOutcome>>);

    impl LockObserver for Outcomes {
        fn hold_ended(&self, _lock: &ObservedLock, end: &HoldEnd) {
            self.0.lock().unwrap().push(end.outcome);
        }
    }

    #[test]
    fn dropped_release_reports_the_response_that_has_arrived() {
        let observer: &'static Outcomes = Box::leak(Box::default());
        for (response, outcome) in [
            (Some(Ok(())), HoldOutcome::Released),
            (Some(Err(LockErrorKind::Lost)), HoldOutcome::Lost),
            (None, HoldOutcome::ReleaseQueued),
        ] {
            let (sender, mut release) = pending(1);
            let options = LockOptions::no_wait();
            let scope = LockScope::Session;
            let mut request =
                RequestRecord::new(&release.key, &options, scope, None, Instant::now());
            request.observe_with(observer);
            release.record = request.granted(Some(1), Instant::now());
            if let Some(result) = response {
                drop(sender.send(Response::Released(result)));
                drop(release);
            } else {
                // Before the sender, whose drop is a response.
                drop(release);
                drop(sender);
            }
            assert_eq!(observer.0.lock().unwrap().pop(), Some(outcome));
        }
        assert_eq!(observer.0.lock().unwrap().len(), 0);
    }
}
