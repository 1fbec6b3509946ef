//! Calls of a lock manager's users: request, and wait for the response.
//!
//! A call is a future for async and blocking callers alike; a blocking caller parks its thread.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_channel::oneshot;
#[cfg(feature = "testing")]
use futures_util::future::{Either, select};

use super::core::{Core, RequestId, RequestKind};
use super::guard::OwnedLockGuard;
use super::release::release_all;
use super::shared::{Caller, Response, ResponseSender, Shared};
use crate::backends::sqlite;
use crate::error::{LockError, LockErrorKind};
use crate::events::{LockSpan, RequestRecord};
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::session::ServerSigns;

/// Maximum number of keys in one call. With default settings, a server's lock table has room for
/// some 12,000 locks of all sessions.
const MAX_KEYS: usize = 10_000;

/// Access of the users and of the timer to a lock manager. Dropping it shuts the lock manager down.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with_core(|core, now| core.shut_down(now));
        #[cfg(feature = "testing")]
        self.shared.closed.fire();
    }
}

impl Handle {
    /// Requests a lock and waits for the response. Contention is an error here, also for callers
    /// of the `try_*` methods.
    ///
    /// Dropping the future at any point removes the request, and releases a lock just granted.
    pub(super) async fn acquire(
        &self,
        key: LockKey,
        options: LockOptions,
        kind: RequestKind,
        caller: Caller,
    ) -> Result<OwnedLockGuard, LockError> {
        check(&options, &key)?;
        let pending = self.request(key, &options, kind, caller);
        pending.granted(&options).await
    }

    fn request(
        &self,
        key: LockKey,
        options: &LockOptions,
        kind: RequestKind,
        caller: Caller,
    ) -> PendingRequest {
        let (mut pending, sender) = self.pending(key, options);
        let requested = pending.key.clone();
        // Over a blocking pool, a call that waits leaves its statement to the session's thread.
        let may_block = caller.may_block_on(options);
        pending.request = Some(self.shared.with_core_and_poll(may_block, |core, now| {
            core.request(requested, options, kind, sender, now)
        }));
        pending
    }

    /// Sends the event of a request, and returns the request and the sender of its response.
    fn pending(&self, key: LockKey, options: &LockOptions) -> (PendingRequest, ResponseSender) {
        let began = Instant::now();
        let mut record = RequestRecord::new(&key, options, LockScope::Session, None, began);
        let (sender, receiver) = oneshot::channel();
        let sender = ResponseSender::new(sender).with_notice(record.wait_notice());
        let pending = PendingRequest {
            request: None,
            receiver,
            shared: Arc::clone(&self.shared),
            key,
            options: *options,
            began,
            span: record.span(),
            record: Some(record),
        };
        (pending, sender)
    }

    /// Acquires all the keys or none of them, each once, in ascending order of the raw keys.
    ///
    /// The call requests all missing keys at once. When one is contended, it releases all locks on
    /// greater keys before it waits for that one. So every waiter holds smaller keys only, which
    /// rules out deadlocks. Any other error ends the call, and it releases all locks.
    pub(super) async fn acquire_all(
        &self,
        mut keys: Vec<LockKey>,
        options: LockOptions,
        caller: Caller,
    ) -> Result<Vec<OwnedLockGuard>, LockError> {
        if let Some(first) = keys.first() {
            check(&options, first)?;
        }
        let began = Instant::now();
        // Raw keys, because two names with one raw key are one lock on the server: the call would
        // wait for itself.
        keys.sort_by_key(LockKey::raw);
        keys.dedup_by_key(|key| key.raw());
        if let (Some(first), true) = (keys.first(), keys.len() > MAX_KEYS) {
            let context = format!("acquire_all acquires at most {MAX_KEYS} keys");
            let error = LockError::new(LockErrorKind::TooManyLocks).with_context(context);
            RequestRecord::failed(first, &options, LockScope::Session, began, &error);
            return Err(error);
        }
        let mut locks: Vec<OwnedLockGuard> = Vec::with_capacity(keys.len());
        let error = loop {
            let missing = keys.get(locks.len()..).unwrap_or_default();
            if missing.is_empty() {
                return Ok(locks);
            }
            // Options that do not wait have no limit of which a part could have passed.
            let rest = options.after(began.elapsed()).unwrap_or(options);
            let failed = self.try_all(missing, &rest, &mut locks, caller).await;
            let Some((key, error)) = failed else {
                continue;
            };
            // Only contention can pass while the call waits.
            let waits = error.kind() == LockErrorKind::HeldElsewhere;
            let Some(options) = options.after(began.elapsed()).filter(|_| waits) else {
                break error;
            };
            let pending = self.request(key, &options, RequestKind::Plain, caller);
            match pending.granted(&options).await {
                Ok(lock) => locks.push(lock),
                Err(error) => break error,
            }
        };
        // The call holds no lock when it fails. A lost lock is not held either, so the error of its
        // release is ignored.
        let _ = release_all(locks).await;
        Err(error)
    }

    /// Requests several keys at once, without a wait for contended ones. Keeps the locks before the
    /// first failure, which it returns.
    async fn try_all(
        &self,
        keys: &[LockKey],
        options: &LockOptions,
        locks: &mut Vec<OwnedLockGuard>,
        caller: Caller,
    ) -> Option<(LockKey, LockError)> {
        let pending = self.request_all(keys, options, caller);
        let (mut failure, mut beyond) = (None, Vec::new());
        // Await every response: a lock granted after the first failure must be released.
        let no_wait = without_wait(options);
        for (pending, key) in pending.into_iter().zip(keys) {
            match pending.granted(&no_wait).await {
                Ok(lock) if failure.is_none() => locks.push(lock),
                Ok(lock) => beyond.push(lock),
                Err(error) => {
                    failure.get_or_insert_with(|| (key.clone(), error));
                }
            }
        }
        // A lock that was lost is not held either, so an error is ignored.
        let _ = release_all(beyond).await;
        failure
    }

    /// Requests several keys under one lock of the core's mutex, so that they form one batch.
    fn request_all(
        &self,
        keys: &[LockKey],
        options: &LockOptions,
        caller: Caller,
    ) -> Vec<PendingRequest> {
        let pending = keys.iter().map(|key| self.pending(key.clone(), options));
        let (mut pending, senders): (Vec<_>, Vec<_>) = pending.unzip();
        let may_block = caller.may_block_on(options);
        self.shared.with_core_and_poll(may_block, |core, now| {
            for ((key, pending), sender) in keys.iter().zip(&mut pending).zip(senders) {
                let kind = RequestKind::OneOfSeveral;
                pending.request = Some(core.request(key.clone(), options, kind, sender, now));
            }
        });
        pending
    }

    pub(super) async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        let sender = ResponseSender::new(sender);
        self.shared.with_core(|core, _| core.close(sender));
        #[cfg(feature = "testing")]
        self.shared.closed.fire();
        // A dropped sender means that the lock manager is gone, so it is closed as well.
        let _ = receiver.await;
    }
}

/// Rejects options that contradict each other, that allow a transaction, or that are options of the
/// lock manager. Records the rejected request.
fn check(options: &LockOptions, key: &LockKey) -> Result<(), LockError> {
    let began = Instant::now();
    validate(options, key).inspect_err(|error| {
        RequestRecord::failed(key, options, LockScope::Session, began, error);
    })
}

fn validate(options: &LockOptions, key: &LockKey) -> Result<(), LockError> {
    options.validate(key, LockScope::Session)?;
    if options.in_transaction {
        let context = "a lock manager's sessions are never in a transaction";
        let error = LockError::new(LockErrorKind::InvalidOptions);
        return Err(error.with_key(key).with_context(context));
    }
    if options.accepted_signs != ServerSigns::NONE {
        let context = "the accepted servers are options of the lock manager, LockManagerOptions";
        let error = LockError::new(LockErrorKind::InvalidOptions);
        return Err(error.with_key(key).with_context(context));
    }
    Ok(())
}

/// Returns the options of one of several keys, which is requested without waiting.
fn without_wait(options: &LockOptions) -> LockOptions {
    LockOptions::no_wait().mode(options.mode)
}

/// A request that waits for its response. Dropping it cancels the request.
struct PendingRequest {
    /// `None` before the request, and when the response has arrived.
    request: Option<RequestId>,
    receiver: oneshot::Receiver<Response>,
    shared: Arc<Shared>,
    key: LockKey,
    options: LockOptions,
    began: Instant,
    /// Taken with `request`.
    record: Option<RequestRecord>,
    span: LockSpan,
}

impl PendingRequest {
    /// Adds the limit and the time waited to the error of a wait.
    fn with_wait(&self, error: LockError) -> LockError {
        match error.kind() {
            LockErrorKind::TimedOut | LockErrorKind::Pool => {
                let waited = self.options.elapsed.saturating_add(self.began.elapsed());
                error.with_wait(self.options.limit(), waited)
            }
            _ => error,
        }
    }

    /// Waits for the response, and ends the record of the request.
    async fn granted(mut self, options: &LockOptions) -> Result<OwnedLockGuard, LockError> {
        // Taken out, because the future borrows all of `self`.
        let span = std::mem::take(&mut self.span);
        let ended = async {
            let granted = self.response(options).await;
            let record = self.take_record();
            match granted {
                Ok(mut held) => {
                    held.lock.begin(record);
                    Ok(held)
                }
                Err(error) => {
                    if let Some(record) = record {
                        record.not_granted(&error, Instant::now());
                    }
                    Err(error)
                }
            }
        };
        span.run(pin!(ended)).await
    }

    /// Waits for the response. In a test scope of the unit-test kit, a lock of a backend without
    /// locks is then acquired in the lock table of the test.
    #[cfg_attr(
        not(feature = "testing"),
        expect(unused_variables, reason = "only the unit-test kit reads the options")
    )]
    async fn response(&mut self, options: &LockOptions) -> Result<OwnedLockGuard, LockError> {
        let response = (&mut self.receiver).await;
        // An answered request needs no cancellation when this future is dropped.
        self.request = None;
        match response {
            Ok(Response::Granted(lock)) => {
                if lock.grant.session.is_none() {
                    #[cfg(feature = "testing")]
                    let policy = super::simulated::missing_lock_policy(&self.options);
                    #[cfg(not(feature = "testing"))]
                    let policy = self.options.on_missing_lock;
                    // Outside the mutex of the core: the subscriber of a warning may call back.
                    sqlite::apply_missing_lock_policy(&self.key, policy)?;
                }
                let held = OwnedLockGuard::new(lock, self.key.clone(), self.options.mode);
                #[cfg(feature = "testing")]
                let held = {
                    let options = options.with_elapsed(self.began.elapsed());
                    let limited = self.options.limit().is_some();
                    let simulated = pin!(held.simulate(&options, limited, self.record.as_mut()));
                    let closed = pin!(self.shared.closed.wait());
                    // The lock first: a call that need not wait is granted.
                    let ended = select(simulated, closed).await;
                    match ended {
                        Either::Left((held, _)) => held?,
                        Either::Right(_) => {
                            return Err(LockError::new(LockErrorKind::Closed).with_key(&self.key));
                        }
                    }
                };
                Ok(held)
            }
            Ok(Response::Failed(error)) => Err(self.with_wait(error)),
            Ok(Response::Released(_) | Response::Closed) | Err(_) => {
                Err(LockError::new(LockErrorKind::Closed).with_key(&self.key))
            }
        }
    }

    fn take_record(&mut self) -> Option<RequestRecord> {
        let mut record = self.record.take();
        if let Some(record) = &mut record {
            record.set_backend(|| self.shared.backend());
        }
        record
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            let cancel = |core: &mut Core<_>, now| core.cancel(request, self.key.raw(), now);
            let sender = self.shared.with_core(cancel);
            // Outside the mutex, because it wakes the task of this call.
            drop(sender);
        }
        drop(self.take_record());
    }
}
