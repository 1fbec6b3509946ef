//! The pools that a locker may be made over.

use std::time::Duration;

use advisory_locking::lock_manager::{BlockingLockManager, LockManager, LockManagerOptions};
use advisory_locking::session::{AsyncLockPool, AsyncLockSession, LockPool};
use advisory_locking::session::{BatchMode, LockBatch, LockSession, TokenSource};
use advisory_locking::{
    AsyncPooledAdvisoryLocking, LockError, LockKey, LockOptions, PooledAdvisoryLocking,
};
use diesel::pg::PgConnection;
use diesel::r2d2::ConnectionManager;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool, mobc};
use sea_orm::{ConnectOptions, Database, DatabaseConnection};

use crate::face::Face;
use crate::support::{PATIENCE, url};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Bb8,
    Deadpool,
    Mobc,
    SeaOrm,
    R2d2,
}

/// A server, and the kind of pool that is opened on it.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    /// How long a pool may look for a connection.
    pub(crate) checkout: Duration,
}

#[derive(Clone)]
pub(crate) enum Pool {
    Bb8(bb8::Pool<AsyncPgConnection>),
    Deadpool(deadpool::Pool<AsyncPgConnection>),
    Mobc(mobc::Pool<AsyncPgConnection>),
    SeaOrm(DatabaseConnection),
    R2d2(diesel::r2d2::Pool<ConnectionManager<PgConnection>>),
}

impl Place {
    pub(crate) fn here(kind: Kind) -> Self {
        Self::at(kind, url())
    }

    pub(crate) const fn at(kind: Kind, url: String) -> Self {
        let checkout = PATIENCE;
        Self {
            kind,
            url,
            checkout,
        }
    }

    pub(crate) async fn pool(&self, size: u32) -> Pool {
        let most = usize::try_from(size).unwrap();
        let manager = || AsyncDieselConnectionManager::<AsyncPgConnection>::new(&self.url);
        match self.kind {
            Kind::Bb8 => {
                let pool = bb8::Pool::builder().max_size(size);
                let pool = pool.connection_timeout(self.checkout);
                Pool::Bb8(pool.build(manager()).await.unwrap())
            }
            Kind::Deadpool => {
                let pool = deadpool::Pool::builder(manager()).max_size(most);
                let pool = pool.runtime(::deadpool::Runtime::Tokio1);
                let pool = pool.wait_timeout(Some(self.checkout));
                Pool::Deadpool(pool.build().unwrap())
            }
            Kind::Mobc => {
                let pool = mobc::Pool::builder().max_open(u64::from(size));
                Pool::Mobc(pool.get_timeout(Some(self.checkout)).build(manager()))
            }
            Kind::SeaOrm => {
                let mut options = ConnectOptions::new(&self.url);
                options.max_connections(size).sqlx_logging(false);
                options.acquire_timeout(self.checkout);
                Pool::SeaOrm(Database::connect(options).await.unwrap())
            }
            Kind::R2d2 => {
                let pool = diesel::r2d2::Pool::builder()
                    .max_size(size)
                    .min_idle(Some(0));
                let pool = pool.connection_timeout(self.checkout);
                Pool::R2d2(pool.build_unchecked(ConnectionManager::new(&self.url)))
            }
        }
    }

    /// A locker with a pool of its own.
    pub(crate) async fn locker(&self, options: LockManagerOptions) -> Face {
        self.pool(4).await.locker(options)
    }
}

/// Does the same with every pool of an async client, and something else with that of the blocking one.
macro_rules! with {
    ($pool:expr, $some:ident => $tasks:expr, $threads:expr) => {
        match $pool {
            Pool::Bb8($some) => $tasks,
            Pool::Deadpool($some) => $tasks,
            Pool::Mobc($some) => $tasks,
            Pool::SeaOrm($some) => $tasks,
            Pool::R2d2($some) => $threads,
        }
    };
}

impl Pool {
    pub(crate) fn locker(&self, options: LockManagerOptions) -> Face {
        self.try_locker(options).unwrap()
    }

    pub(crate) fn try_locker(&self, options: LockManagerOptions) -> Result<Face, LockError> {
        with!(self, pool => LockManager::with_options(pool.clone(), options).map(Face::Tasks),
            BlockingLockManager::with_options(pool.clone(), options).map(Face::Threads))
    }

    /// Takes a lock as one does without a locker, on a connection of this pool.
    pub(crate) async fn plainly(
        &self,
        key: &LockKey,
        options: LockOptions,
        meanwhile: impl AsyncFnOnce(),
    ) -> Result<(), LockError> {
        with!(self, pool => {
            let guard = pool.acquire_advisory_lock(key, options).await?;
            meanwhile().await;
            guard.release().await
        }, {
            let guard = pool.acquire_advisory_lock(key, options)?;
            meanwhile().await;
            guard.release()
        })
    }

    /// Has so many connections at once, and tells of their sessions.
    pub(crate) async fn pids(&self, count: usize) -> Vec<i64> {
        let ping = LockBatch::new(
            BatchMode::Execute,
            0,
            Vec::new(),
            TokenSource::TransactionId,
        );
        let mut pids = Vec::new();
        with!(self, pool => {
            let mut out = Vec::new();
            for _ in 0..count {
                let mut conn = pool.checkout().await.unwrap();
                pids.push(i64::from(conn.session_execute_batch(&ping).await.unwrap().pid));
                out.push(conn);
            }
        }, {
            let mut out = Vec::new();
            for _ in 0..count {
                let mut conn = pool.checkout().unwrap();
                pids.push(i64::from(conn.session_execute_batch(&ping).unwrap().pid));
                out.push(conn);
            }
        });
        pids
    }
}
