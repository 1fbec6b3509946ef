//! A granted lock on the caller's side, and its release: [`LockHandle`].

use std::sync::Arc;
use std::time::Instant;

use futures_channel::oneshot;

use super::core::{Core, LockGrant};
use super::loss_signal::LossSignal;
use super::shared::{Caller, Response, ResponseSender, Shared};
use crate::error::{LockError, LockErrorKind};
use crate::events::{GrantRecord, LockSpan, RequestRecord};

/// A granted lock. Dropping it releases the lock, and sends the event of a dropped guard.
#[derive(Debug)]
pub(super) struct LockHandle {
    shared: Arc<Shared>,
    pub(super) grant: LockGrant,
    is_released: bool,
    /// Process id of the session on the server. `None` without a server.
    pub(super) pid: Option<i32>,
    pub(super) loss: Option<Arc<LossSignal>>,
    /// `None` until the caller has received the lock, and after its release has begun.
    record: Option<GrantRecord>,
}

impl LockHandle {
    pub(super) const fn new(
        shared: Arc<Shared>,
        grant: LockGrant,
        pid: Option<i32>,
        loss: Option<Arc<LossSignal>>,
    ) -> Self {
        Self {
            shared,
            grant,
            is_released: false,
            pid,
            loss,
            record: None,
        }
    }

    /// Ends the request with the grant, which begins the hold.
    pub(super) fn begin(&mut self, request: Option<RequestRecord>) {
        self.record = request.and_then(|request| request.granted(self.pid, Instant::now()));
    }

    /// Replaces the fencing token by a later one.
    #[cfg(feature = "testing")]
    pub(super) fn reissue_token(&mut self) {
        if self.grant.token.is_some() {
            let token = self.shared.with_core(|core, _| core.process_token());
            self.grant.token = Some(token);
        }
    }

    /// Returns the effect of a loss in the lock table of a test: the holder learns of it, and the
    /// lock is free for the other callers of the process.
    #[cfg(feature = "testing")]
    pub(super) fn loss_hook(&self, loss: Arc<LossSignal>) -> impl Fn() + Send + Sync + use<> {
        // Weak: the lock table drops the hook under its mutex, and the last drop may call back.
        let (shared, grant) = (Arc::downgrade(&self.shared), self.grant);
        move || {
            loss.fire();
            if let Some(shared) = shared.upgrade() {
                // The release by the guard then finds the lock lost.
                shared.with_core(|core, now| core.release(grant, None, now));
            }
        }
    }

    /// Ends the hold, once: its release follows.
    pub(super) fn begin_release(&mut self) -> Option<GrantRecord> {
        self.record.take().map(GrantRecord::releasing)
    }

    /// Returns the span of a body under the lock.
    pub(super) fn span(&self) -> LockSpan {
        let record = self.record.as_ref();
        record.map_or_else(LockSpan::default, GrantRecord::span)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.loss.as_deref().is_some_and(LossSignal::is_fired)
    }

    /// Returns the grant, once: its release follows.
    fn take_grant(&mut self) -> Option<LockGrant> {
        let is_held = !std::mem::replace(&mut self.is_released, true);
        is_held.then_some(self.grant)
    }

    /// Releases the lock. The sender gets the result.
    pub(super) fn release(mut self, sender: oneshot::Sender<Response>, caller: Caller) {
        if let Some(grant) = self.take_grant() {
            let sender = Some(ResponseSender::new(sender));
            let release = |core: &mut Core<ResponseSender>, now| core.release(grant, sender, now);
            self.shared.with_core_and_poll(caller.may_block(), release);
        }
    }

    /// Releases several locks of one lock manager in one batch.
    pub(super) fn release_all(all: Vec<(Self, oneshot::Sender<Response>)>) {
        let Some(shared) = all.first().map(|(lock, _)| Arc::clone(&lock.shared)) else {
            return;
        };
        let grants = all.into_iter().filter_map(|(mut lock, sender)| {
            let grant = lock.take_grant()?;
            Some((grant, Some(ResponseSender::new(sender))))
        });
        let grants: Vec<_> = grants.collect();
        shared.with_core(|core, now| {
            for (grant, sender) in grants {
                core.release(grant, sender, now);
            }
        });
    }
}

impl Drop for LockHandle {
    fn drop(&mut self) {
        if let Some(grant) = self.take_grant() {
            self.shared
                .with_core(|core, now| core.release(grant, None, now));
        }
        let Some(release) = self.begin_release() else {
            return;
        };
        if self.is_lost() {
            release.ended_without_caller(Err(LockError::new(LockErrorKind::Lost)));
        } else {
            release.queued();
        }
    }
}
