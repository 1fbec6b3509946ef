//! Methods of [`LockManager`] that run a body under a lock.

use std::pin::pin;

use futures_util::future::{Either, select};

use super::LockManager;
use crate::combine_results::combine_results;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::lock_manager::guard::OwnedLockGuard;
use crate::options::LockOptions;
use crate::session::AsyncBody;

impl LockManager {
    /// Runs `body` under the lock on `key`. Write the body as `async |guard| { … }`.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`release`](OwnedLockGuard::release). The body's error has
    /// precedence. The lock is not held afterwards, with the exceptions stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire). Dropping the future while the body runs drops the body and
    /// releases the lock.
    pub fn with_lock<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
            + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let guard = self.acquire(key, options).await?;
            run(guard, body).await
        }
    }

    /// Runs `body` under the lock on `key` on this thread, and blocks it meanwhile.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock). The lock is not held afterwards, with the exceptions
    /// stated there.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers). A panic of the
    /// body releases the lock.
    #[track_caller]
    pub fn with_lock_blocking<T, E: From<LockError>>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&OwnedLockGuard) -> Result<T, E>,
    ) -> Result<T, E> {
        let guard = self.acquire_blocking(key, options)?;
        let result = guard.lock.span().in_scope(|| body(&guard));
        combine_results(result, guard.release_blocking())
    }

    /// Runs `body` under the lock on `key`, or returns `None` if the lock is contended or the limit
    /// passed. Then the body did not run.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock), except for `HeldElsewhere` and `TimedOut`. The lock is
    /// not held afterwards, with the exceptions stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`with_lock`](Self::with_lock).
    pub fn try_with_lock<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
            + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            match self.try_acquire(key, options).await? {
                Some(guard) => run(guard, body).await.map(Some),
                None => Ok(None),
            }
        }
    }

    /// Runs `body` as [`with_lock_blocking`](Self::with_lock_blocking) does, or returns `None` if
    /// the lock is contended or the limit passed. Then the body did not run.
    ///
    /// # Errors
    ///
    /// As [`try_with_lock`](Self::try_with_lock). The lock is not held afterwards, with the
    /// exceptions stated there.
    ///
    /// # Panics
    ///
    /// As [`with_lock_blocking`](Self::with_lock_blocking).
    #[track_caller]
    pub fn try_with_lock_blocking<T, E: From<LockError>>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&OwnedLockGuard) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let Some(guard) = self.try_acquire_blocking(key, options)? else {
            return Ok(None);
        };
        let result = guard.lock.span().in_scope(|| body(&guard));
        combine_results(result, guard.release_blocking()).map(Some)
    }

    /// Runs `body` as [`with_lock`](Self::with_lock) does, and drops it when the lock is lost.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock). [`Lost`](LockErrorKind::Lost) as soon as the loss is
    /// known. The lock is not held afterwards, with the exceptions stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`with_lock`](Self::with_lock).
    pub fn with_lock_while_held<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
            + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let guard = self.acquire(key, options).await?;
            run_while_held(guard, body).await
        }
    }

    /// Runs `body` as [`with_lock_while_held`](Self::with_lock_while_held) does, or returns `None`
    /// if the lock is contended or the limit passed. Then the body did not run.
    ///
    /// # Errors
    ///
    /// As [`with_lock_while_held`](Self::with_lock_while_held), except for `HeldElsewhere` and
    /// `TimedOut`. The lock is not held afterwards, with the exceptions stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`with_lock`](Self::with_lock).
    pub fn try_with_lock_while_held<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
            + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            match self.try_acquire(key, options).await? {
                Some(guard) => run_while_held(guard, body).await.map(Some),
                None => Ok(None),
            }
        }
    }
}

/// Runs the body and releases the lock.
async fn run<T, E, F>(guard: OwnedLockGuard, body: F) -> Result<T, E>
where
    for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
        + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
        + Send,
    E: From<LockError> + Send,
    T: Send,
{
    let result = guard.lock.span().run(pin!(body(&guard))).await;
    combine_results(result, guard.release().await)
}

/// Runs the body and releases the lock, or drops the body when the lock is lost.
async fn run_while_held<T, E, F>(guard: OwnedLockGuard, body: F) -> Result<T, E>
where
    for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
        + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
        + Send,
    E: From<LockError> + Send,
    T: Send,
{
    // The body is polled first, so its result counts if the loss becomes known with it.
    let span = guard.lock.span();
    let result = match select(pin!(span.run(pin!(body(&guard)))), pin!(guard.lost())).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    };
    let lost = LockError::new(LockErrorKind::Lost).with_key(guard.key());
    let released = guard.release().await;
    match result {
        Some(result) => combine_results(result, released),
        // It has ended the hold; the caller knows the outcome already.
        None => Err(lost.into()),
    }
}
