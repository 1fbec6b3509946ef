//! A granted lock and its release.
//!
//! The release starts at once. Its future waits for the response, and sends the event of its end.

#[cfg(feature = "testing")]
use std::sync::Arc;
use std::time::Instant;

use super::core::SessionId;
use super::lock_handle::{HoldRecord, LockHandle, ResponseReceiver};
use super::loss_signal::LossSignal;
use super::shared::{Caller, Response};
#[cfg(feature = "testing")]
use super::simulated::SimulatedLock;
use crate::error::{LockError, LockErrorKind};
use crate::events::{GrantRecord, LockSpan, RequestRecord};
use crate::key::LockKey;
use crate::options::LockMode;
#[cfg(feature = "testing")]
use crate::options::LockOptions;

/// A held lock, with its key and mode.
#[derive(Debug)]
pub(super) struct HeldLock {
    lock: LockHandle,
    record: HoldRecord,
    key: LockKey,
    mode: LockMode,
    /// The lock in the lock table of a test.
    #[cfg(feature = "testing")]
    simulated: Option<SimulatedLock>,
}

impl HeldLock {
    pub(super) fn new(mut lock: LockHandle, key: LockKey, mode: LockMode) -> Self {
        Self {
            record: HoldRecord::new(lock.loss.take()),
            lock,
            key,
            mode,
            #[cfg(feature = "testing")]
            simulated: None,
        }
    }

    /// Ends the request with the grant, which begins the hold.
    pub(super) fn begin(&mut self, request: Option<RequestRecord>) {
        self.record.grant =
            request.and_then(|request| request.granted(self.lock.pid, Instant::now()));
    }

    /// Acquires the lock in the lock table of a test, on a backend without locks.
    #[cfg(feature = "testing")]
    pub(super) async fn simulate(mut self, options: &LockOptions) -> Result<Self, LockError> {
        let session = self.lock.grant.session;
        let simulated = SimulatedLock::acquire(session, &self.key, options).await?;
        if let Some(simulated) = &simulated {
            let loss = self.record.loss.get_or_insert_default();
            simulated.fire_on_loss(Arc::clone(loss));
        }
        self.simulated = simulated;
        Ok(self)
    }

    /// Splits the lock into its handle and the rest of its release.
    fn into_parts(self) -> (LockHandle, PendingRelease) {
        let release = PendingRelease {
            key: self.key,
            record: self.record.releasing(),
            #[cfg(feature = "testing")]
            simulated: self.simulated,
        };
        (self.lock, release)
    }

    pub(super) const fn key(&self) -> &LockKey {
        &self.key
    }

    pub(super) fn span(&self) -> LockSpan {
        self.record.span()
    }

    pub(super) const fn mode(&self) -> LockMode {
        self.mode
    }

    pub(super) const fn token(&self) -> Option<i64> {
        self.lock.grant.token
    }

    pub(super) fn generation(&self) -> u64 {
        let session = self.lock.grant.session;
        session.map_or(0, SessionId::generation)
    }

    pub(super) fn loss(&self) -> Option<&LossSignal> {
        self.record.loss.as_deref()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.loss().is_some_and(LossSignal::is_fired)
    }

    /// Releases the lock at once. The returned future reports the result.
    pub(super) fn release(
        self,
        caller: Caller,
    ) -> impl Future<Output = Result<(), LockError>> + Send {
        let (lock, release) = self.into_parts();
        // Outside the future, because the call itself starts the release.
        let receiver = lock.release(caller);
        release.result(receiver)
    }
}

/// Releases several locks of one lock manager, and returns the first error.
pub(super) async fn release_all(
    locks: impl IntoIterator<Item = HeldLock>,
) -> Result<(), LockError> {
    let (locks, releases): (Vec<_>, Vec<_>) = locks.into_iter().map(HeldLock::into_parts).unzip();
    all_released(LockHandle::release_all(locks).into_iter().zip(releases)).await
}

/// Waits until all locks are released, and returns the first error.
async fn all_released(
    releases: impl Iterator<Item = (ResponseReceiver, PendingRelease)>,
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
struct PendingRelease {
    key: LockKey,
    record: Option<GrantRecord>,
    #[cfg(feature = "testing")]
    simulated: Option<SimulatedLock>,
}

impl PendingRelease {
    /// Waits for the result. Dropping the future drops the report only.
    async fn result(mut self, receiver: ResponseReceiver) -> Result<(), LockError> {
        let result = match receiver.await {
            Some(Response::Released(result)) => result,
            // No response: the lock manager has ended, and its sessions have released the lock.
            Some(Response::Granted(_) | Response::Failed(_) | Response::Closed) | None => {
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
        let receivers = receivers.into_iter().map(ResponseReceiver);
        let releases = [1, 2, 3].map(|number| PendingRelease {
            key: LockKey::from(number),
            record: None,
            #[cfg(feature = "testing")]
            simulated: None,
        });
        let mut released = pin!(all_released(receivers.zip(releases)));
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
