//! The release of a lock: [`PendingRelease`].
//!
//! The release starts at once. Its future waits for the response, and sends the event of its end.

use std::time::Instant;

use futures_channel::oneshot::Receiver;

use super::guard::OwnedLockGuard;
use super::lock_handle::LockHandle;
use super::shared::Response;
#[cfg(feature = "testing")]
use super::simulated::SimulatedLock;
use crate::error::{LockError, LockErrorKind};
use crate::events::GrantRecord;
use crate::key::LockKey;

/// Releases several locks of one lock manager, and returns the first error.
pub(super) async fn release_all(
    guards: impl IntoIterator<Item = OwnedLockGuard>,
) -> Result<(), LockError> {
    let parts = guards.into_iter().map(OwnedLockGuard::into_parts);
    let (locks, releases): (Vec<_>, Vec<_>) = parts.unzip();
    all_released(LockHandle::release_all(locks).into_iter().zip(releases)).await
}

/// Waits until all locks are released, and returns the first error.
async fn all_released(
    releases: impl Iterator<Item = (Receiver<Response>, PendingRelease)>,
) -> Result<(), LockError> {
    let mut result = Ok(());
    for (receiver, release) in releases {
        // The caller gets the first error. The others are awaited too, so that each hold ends with
        // its event.
        result = result.and(release.result(receiver).await);
    }
    result
}

/// A release that has started, until its result.
pub(super) struct PendingRelease {
    pub(super) key: LockKey,
    pub(super) record: Option<GrantRecord>,
    #[cfg(feature = "testing")]
    pub(super) simulated: Option<SimulatedLock>,
}

impl PendingRelease {
    /// Waits for the result. Dropping the future drops the report only.
    pub(super) async fn result(mut self, receiver: Receiver<Response>) -> Result<(), LockError> {
        let result = match receiver.await {
            Ok(Response::Released(result)) => result,
            // No response: the lock manager has ended, and its sessions have released the lock.
            Ok(Response::Granted(_) | Response::Failed(_) | Response::Closed) | Err(_) => {
                Err(LockErrorKind::Lost)
            }
        };
        let result = result.map_err(|kind| LockError::new(kind).with_key(&self.key));
        #[cfg(feature = "testing")]
        let result = match self.simulated.take() {
            Some(simulated) => result.and(simulated.release().await),
            None => result,
        };
        if let Some(release) = self.record.take() {
            release.ended(&result, Instant::now());
        }
        result
    }
}

impl Drop for PendingRelease {
    fn drop(&mut self) {
        // The release has started, and ends without its caller.
        if let Some(release) = self.record.take() {
            release.queued();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use futures_channel::oneshot;

    use super::*;

    #[test]
    fn release_of_several_locks_awaits_all_despite_an_error() {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
        let releases = [1, 2, 3].map(|number| PendingRelease {
            key: LockKey::from(number),
            record: None,
            #[cfg(feature = "testing")]
            simulated: None,
        });
        let mut released = pin!(all_released(receivers.into_iter().zip(releases)));
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
}
