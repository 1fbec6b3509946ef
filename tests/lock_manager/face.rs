//! Both lockers, behind one face. The blocking one is called on a thread that may block.

use advisory_locking::lock_manager::{
    BlockingLockManager, BlockingOwnedLockGuard, BlockingOwnedLockGuards, LockManager,
    OwnedLockGuard, OwnedLockGuards,
};
use advisory_locking::{LockError, LockKey, LockMode, LockOptions};
use tokio::task::{JoinHandle, spawn_blocking};

#[derive(Clone, Debug)]
pub(crate) enum Face {
    Tasks(LockManager),
    Threads(BlockingLockManager),
}

#[derive(Debug)]
pub(crate) enum Guard {
    Tasks(OwnedLockGuard),
    Threads(BlockingOwnedLockGuard),
}

#[derive(Debug)]
pub(crate) enum Guards {
    Tasks(OwnedLockGuards),
    Threads(BlockingOwnedLockGuards),
}

async fn on_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Calls the same method of either locker.
macro_rules! call {
    ($self:expr, $method:ident($($argument:expr),*) => $tasks:expr, $threads:expr) => {
        match $self {
            Face::Tasks(locker) => locker.$method($($argument),*).await.map($tasks),
            Face::Threads(locker) => {
                let locker = locker.clone();
                on_thread(move || locker.$method($($argument),*)).await.map($threads)
            }
        }
    };
}

impl Face {
    pub(crate) async fn acquire(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<Guard, LockError> {
        let key = key.clone();
        call!(self, acquire(key, options) => Guard::Tasks, Guard::Threads)
    }

    /// Acquires in a task of its own.
    pub(crate) fn ask(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> JoinHandle<Result<Guard, LockError>> {
        let (locker, key) = (self.clone(), key.clone());
        tokio::spawn(async move { locker.acquire(&key, options).await })
    }

    pub(crate) async fn acquire_fenced(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<Guard, LockError> {
        let key = key.clone();
        call!(self, acquire_fenced(key, options) => Guard::Tasks, Guard::Threads)
    }

    pub(crate) async fn try_acquire(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<Option<Guard>, LockError> {
        let key = key.clone();
        call!(self, try_acquire(key, options) => |guard| guard.map(Guard::Tasks), |guard| guard.map(Guard::Threads))
    }

    pub(crate) async fn try_acquire_fenced(
        &self,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<Option<Guard>, LockError> {
        let key = key.clone();
        call!(self, try_acquire_fenced(key, options) => |guard| guard.map(Guard::Tasks), |guard| guard.map(Guard::Threads))
    }

    pub(crate) async fn acquire_all(
        &self,
        keys: Vec<LockKey>,
        options: LockOptions,
    ) -> Result<Guards, LockError> {
        call!(self, acquire_all(keys, options) => Guards::Tasks, Guards::Threads)
    }

    pub(crate) async fn try_acquire_all(
        &self,
        keys: Vec<LockKey>,
        options: LockOptions,
    ) -> Result<Option<Guards>, LockError> {
        call!(self, try_acquire_all(keys, options) => |guards| guards.map(Guards::Tasks), |guards| guards.map(Guards::Threads))
    }

    /// The body runs on a thread or task of the locker's user, and does not wait.
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
        let key = key.clone();
        match self {
            Self::Tasks(locker) => locker.with_lock(key, options, async |_| body()).await,
            Self::Threads(locker) => {
                let locker = locker.clone();
                on_thread(move || locker.with_lock(key, options, |_| body())).await
            }
        }
    }

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
        let key = key.clone();
        match self {
            Self::Tasks(locker) => locker.try_with_lock(key, options, async |_| body()).await,
            Self::Threads(locker) => {
                let locker = locker.clone();
                on_thread(move || locker.try_with_lock(key, options, |_| body())).await
            }
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Tasks(locker) => locker.close().await,
            Self::Threads(locker) => {
                let locker = locker.clone();
                on_thread(move || locker.close()).await;
            }
        }
    }
}

macro_rules! ask {
    ($self:expr, $guard:ident => $answer:expr) => {
        match $self {
            Self::Tasks($guard) => $answer,
            Self::Threads($guard) => $answer,
        }
    };
}

impl Guard {
    pub(crate) fn key(&self) -> &LockKey {
        ask!(self, guard => guard.key())
    }

    pub(crate) fn mode(&self) -> LockMode {
        ask!(self, guard => guard.mode())
    }

    pub(crate) fn token(&self) -> Option<i64> {
        ask!(self, guard => guard.fencing_token())
    }

    pub(crate) fn generation(&self) -> u64 {
        ask!(self, guard => guard.generation())
    }

    pub(crate) fn is_lost(&self) -> bool {
        ask!(self, guard => guard.is_lost())
    }

    pub(crate) async fn release(self) -> Result<(), LockError> {
        match self {
            Self::Tasks(guard) => guard.release().await,
            Self::Threads(guard) => on_thread(move || guard.release()).await,
        }
    }
}

impl Guards {
    pub(crate) fn keys(&self) -> Vec<LockKey> {
        match self {
            Self::Tasks(guards) => guards
                .guards()
                .iter()
                .map(|guard| guard.key().clone())
                .collect(),
            Self::Threads(guards) => guards
                .guards()
                .iter()
                .map(|guard| guard.key().clone())
                .collect(),
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        ask!(self, guards => guards.is_lost())
    }

    pub(crate) async fn release(self) -> Result<(), LockError> {
        match self {
            Self::Tasks(guards) => guards.release().await,
            Self::Threads(guards) => on_thread(move || guards.release()).await,
        }
    }
}
