//! A granted lock on the caller's side, and its release: [`LockHandle`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_channel::oneshot;

use super::core::{Core, LockGrant};
use super::loss_signal::LossSignal;
use super::shared::{Caller, Response, ResponseSender, Shared};
use crate::error::{LockError, LockErrorKind};
use crate::events::{GrantRecord, LockSpan};

/// A granted lock; released when dropped.
#[derive(Debug)]
pub(super) struct LockHandle {
    shared: Arc<Shared>,
    pub(super) grant: LockGrant,
    is_released: bool,
    /// Process id of the session on the server. `None` without a server.
    pub(super) pid: Option<i32>,
    pub(super) loss: Option<Arc<LossSignal>>,
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
        }
    }

    /// Returns the grant, once: its release follows.
    fn take_grant(&mut self) -> Option<LockGrant> {
        let is_held = !std::mem::replace(&mut self.is_released, true);
        is_held.then_some(self.grant)
    }

    /// Releases the lock. The receiver gets the result.
    pub(super) fn release(mut self, caller: Caller) -> ResponseReceiver {
        let (sender, receiver) = oneshot::channel();
        if let Some(grant) = self.take_grant() {
            let sender = Some(ResponseSender::new(sender));
            let release = |core: &mut Core<ResponseSender>, now| core.release(grant, sender, now);
            self.shared.with_core_and_poll(caller.may_block(), release);
        }
        ResponseReceiver(receiver)
    }

    /// Releases several locks of one lock manager in one batch.
    pub(super) fn release_all(mut all: Vec<Self>) -> Vec<ResponseReceiver> {
        let Some(shared) = all.first().map(|lock| Arc::clone(&lock.shared)) else {
            return Vec::new();
        };
        let (senders, receivers): (Vec<_>, Vec<_>) = all.iter().map(|_| oneshot::channel()).unzip();
        let grants: Vec<_> = all.iter_mut().map(Self::take_grant).collect();
        shared.with_core(|core, now| {
            for (grant, sender) in grants.into_iter().zip(senders) {
                if let Some(grant) = grant {
                    core.release(grant, Some(ResponseSender::new(sender)), now);
                }
            }
        });
        receivers.into_iter().map(ResponseReceiver).collect()
    }
}

/// The receiver of a response. Its output is `None` if the lock manager is gone.
pub(super) struct ResponseReceiver(pub(super) oneshot::Receiver<Response>);

impl Future for ResponseReceiver {
    type Output = Option<Response>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

impl Drop for LockHandle {
    fn drop(&mut self) {
        let Some(grant) = self.take_grant() else {
            return;
        };
        self.shared
            .with_core(|core, now| core.release(grant, None, now));
    }
}

/// Record of a held lock. Dropping it sends the event of a dropped guard.
#[derive(Debug)]
pub(super) struct HoldRecord {
    pub(super) grant: Option<GrantRecord>,
    pub(super) loss: Option<Arc<LossSignal>>,
}

impl HoldRecord {
    pub(super) const fn new(loss: Option<Arc<LossSignal>>) -> Self {
        Self { grant: None, loss }
    }

    /// Returns the span of a body under the lock.
    pub(super) fn span(&self) -> LockSpan {
        let grant = self.grant.as_ref();
        grant.map_or_else(LockSpan::default, GrantRecord::span)
    }

    /// Begins the release.
    pub(super) fn releasing(mut self) -> Option<GrantRecord> {
        self.grant.take().map(GrantRecord::releasing)
    }
}

impl Drop for HoldRecord {
    fn drop(&mut self) {
        let Some(release) = self.grant.take().map(GrantRecord::releasing) else {
            return;
        };
        if self.loss.as_deref().is_some_and(LossSignal::is_fired) {
            release.ended_without_caller(Err(LockError::new(LockErrorKind::Lost)));
        } else {
            release.queued();
        }
    }
}
