//! A lock manager that is called as async or as blocking callers do: [`TestManager`].
//!
//! A blocking call is made on a thread of the runtime's blocking pool.

use std::ops::Deref;

use advisory_locking::lock_manager::{LockManager, OwnedLockGuard, OwnedLockGuards};
use advisory_locking::{LockError, LockKey, LockOptions};
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::server::eventually;
use tokio::task::{JoinHandle, spawn_blocking};

/// The methods that a test calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Caller {
    Async,
    /// The methods named `*_blocking`.
    Blocking,
}

#[derive(Clone, Debug)]
pub(crate) struct TestManager {
    pub(crate) manager: LockManager,
    pub(crate) caller: Caller,
}

/// A guard that is released by the methods of its caller.
#[derive(Debug)]
pub(crate) struct TestGuard {
    guard: OwnedLockGuard,
    caller: Caller,
}

#[derive(Debug)]
pub(crate) struct TestGuards {
    guards: OwnedLockGuards,
    caller: Caller,
}

async fn on_blocking_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Calls the first method for async callers, and the second one for blocking callers.
macro_rules! call {
    ($self:expr, $async:ident, $blocking:ident ($($argument:expr),*)) => {
        match $self.caller {
            Caller::Async => $self.manager.$async($($argument),*).await,
            Caller::Blocking => {
                let manager = $self.manager.clone();
                on_blocking_thread(move || manager.$blocking($($argument),*)).await
            }
        }
    };
}

impl TestManager {
    const fn guard(&self, guard: OwnedLockGuard) -> TestGuard {
        TestGuard {
            guard,
            caller: self.caller,
        }
    }

    const fn guards(&self, guards: OwnedLockGuards) -> TestGuards {
        TestGuards {
            guards,
            caller: self.caller,
        }
    }

    pub(crate) async fn acquire(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<TestGuard, LockError> {
        let key = key.clone();
        let result = call!(self, acquire, acquire_blocking(key, options));
        result.map(|guard| self.guard(guard))
    }

    /// Acquires in a task of its own.
    pub(crate) fn spawn_acquire(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> JoinHandle<Result<TestGuard, LockError>> {
        let (manager, key) = (self.clone(), key.clone());
        tokio::spawn(async move { manager.acquire(&key, options).await })
    }

    /// Acquires a contended lock in a task of its own, and returns when the request waits: in the
    /// server's queue, or between two polls.
    pub(crate) fn spawn_waiting(
        &self,
        observer: &mut PgConnection,
        key: &LockKey,
        options: LockOptions,
    ) -> JoinHandle<Result<TestGuard, LockError>> {
        let before = self.manager.snapshot().batches;
        let acquiring = self.spawn_acquire(key, options);
        // One batch is the attempt, and the next one a poll.
        eventually("a waiter", || {
            !observer.waiters(key).is_empty() || self.manager.snapshot().batches > before + 1
        });
        acquiring
    }

    pub(crate) async fn acquire_fenced(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<TestGuard, LockError> {
        let key = key.clone();
        let result = call!(self, acquire_fenced, acquire_fenced_blocking(key, options));
        result.map(|guard| self.guard(guard))
    }

    pub(crate) async fn try_acquire(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<Option<TestGuard>, LockError> {
        let key = key.clone();
        let result = call!(self, try_acquire, try_acquire_blocking(key, options));
        result.map(|guard| guard.map(|guard| self.guard(guard)))
    }

    pub(crate) async fn try_acquire_fenced(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<Option<TestGuard>, LockError> {
        let key = key.clone();
        let result = call!(
            self,
            try_acquire_fenced,
            try_acquire_fenced_blocking(key, options)
        );
        result.map(|guard| guard.map(|guard| self.guard(guard)))
    }

    pub(crate) async fn acquire_all(
        &self,
        keys: Vec<LockKey>,
        options: LockOptions,
    ) -> Result<TestGuards, LockError> {
        let result = call!(self, acquire_all, acquire_all_blocking(keys, options));
        result.map(|guards| self.guards(guards))
    }

    pub(crate) async fn try_acquire_all(
        &self,
        keys: Vec<LockKey>,
        options: LockOptions,
    ) -> Result<Option<TestGuards>, LockError> {
        let result = call!(
            self,
            try_acquire_all,
            try_acquire_all_blocking(keys, options)
        );
        result.map(|guards| guards.map(|guards| self.guards(guards)))
    }

    /// Runs a body that does not await, on the caller's task or thread.
    pub(crate) async fn with_lock<T, E>(
        &self,
        key: &LockKey,
        options: LockOptions,
        body: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LockError> + Send + 'static,
    {
        let (manager, key) = (self.manager.clone(), key.clone());
        match self.caller {
            Caller::Async => manager.with_lock(key, options, async |_| body()).await,
            Caller::Blocking => {
                on_blocking_thread(move || manager.with_lock_blocking(key, options, |_| body()))
                    .await
            }
        }
    }

    /// As [`with_lock`](Self::with_lock); `None` if the lock is contended.
    pub(crate) async fn try_with_lock<T, E>(
        &self,
        key: &LockKey,
        options: LockOptions,
        body: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Option<T>, E>
    where
        T: Send + 'static,
        E: From<LockError> + Send + 'static,
    {
        let (manager, key) = (self.manager.clone(), key.clone());
        match self.caller {
            Caller::Async => manager.try_with_lock(key, options, async |_| body()).await,
            Caller::Blocking => {
                on_blocking_thread(move || manager.try_with_lock_blocking(key, options, |_| body()))
                    .await
            }
        }
    }

    pub(crate) async fn close(&self) {
        call!(self, close, close_blocking());
    }
}

impl Deref for TestGuard {
    type Target = OwnedLockGuard;

    fn deref(&self) -> &OwnedLockGuard {
        &self.guard
    }
}

impl TestGuard {
    pub(crate) async fn release(self) -> Result<(), LockError> {
        let guard = self.guard;
        match self.caller {
            Caller::Async => guard.release().await,
            Caller::Blocking => on_blocking_thread(move || guard.release_blocking()).await,
        }
    }
}

impl TestGuards {
    pub(crate) fn keys(&self) -> Vec<LockKey> {
        let guards = self.guards.guards().iter();
        guards.map(|guard| guard.key().clone()).collect()
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.guards.is_lost()
    }

    pub(crate) async fn release(self) -> Result<(), LockError> {
        let guards = self.guards;
        match self.caller {
            Caller::Async => guards.release().await,
            Caller::Blocking => on_blocking_thread(move || guards.release_blocking()).await,
        }
    }
}
