//! The pools of the tests: [`PoolUnderTest`].

use std::time::Duration;

use ::tokio_postgres::NoTls;
use advisory_locking::lock_manager::{LockManager, LockManagerOptions};
use advisory_locking::session::{AsyncLockPool, AsyncLockSession, LockPool};
use advisory_locking::session::{
    BatchMode, BatchReply, LockBatch, LockSession, Statement, TokenSource,
};
use advisory_locking::{
    AsyncPooledAdvisoryLocking, LockError, LockKey, LockOptions, PooledAdvisoryLocking,
};
use bb8_postgres::PostgresConnectionManager;
use diesel::pg::PgConnection;
use diesel::r2d2::ConnectionManager;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool, mobc};
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::server::{TIMEOUT, url};

use crate::test_manager::{Caller, TestManager};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PoolKind {
    Bb8,
    Deadpool,
    Mobc,
    SeaOrm,
    Sqlx,
    TokioPostgres,
    DeadpoolPostgres,
    R2d2,
}

impl PoolKind {
    /// Returns whether the client finds a closed connection without I/O of a call.
    pub(crate) const fn finds_closed_connections(self) -> bool {
        match self {
            Self::Bb8
            | Self::Deadpool
            | Self::Mobc
            | Self::TokioPostgres
            | Self::DeadpoolPostgres => true,
            Self::SeaOrm | Self::Sqlx | Self::R2d2 => false,
        }
    }
}

/// A kind of pool, the server that it connects to, and the callers of its lock manager.
#[derive(Clone)]
pub(crate) struct PoolUnderTest {
    pub(crate) kind: PoolKind,
    pub(crate) caller: Caller,
    pub(crate) url: String,
    /// The timeout of a checkout.
    pub(crate) checkout: Duration,
}

#[derive(Clone)]
pub(crate) enum Connections {
    Bb8(bb8::Pool<AsyncPgConnection>),
    Deadpool(deadpool::Pool<AsyncPgConnection>),
    Mobc(mobc::Pool<AsyncPgConnection>),
    SeaOrm(DatabaseConnection),
    Sqlx(PgPool),
    TokioPostgres(::bb8::Pool<PostgresConnectionManager<NoTls>>),
    DeadpoolPostgres(deadpool_postgres::Pool),
    R2d2(diesel::r2d2::Pool<ConnectionManager<PgConnection>>),
}

/// An open pool, and the callers of its lock manager.
#[derive(Clone)]
pub(crate) struct Pool {
    connections: Connections,
    caller: Caller,
}

impl PoolUnderTest {
    /// A pool on the server of the test run.
    pub(crate) fn new(kind: PoolKind, caller: Caller) -> Self {
        Self {
            kind,
            caller,
            url: url(),
            checkout: TIMEOUT,
        }
    }

    /// The same pool on another server.
    pub(crate) fn on_server(&self, url: String) -> Self {
        Self {
            url,
            ..self.clone()
        }
    }

    pub(crate) async fn pool(&self, size: u32) -> Pool {
        Pool {
            connections: self.connections(size).await,
            caller: self.caller,
        }
    }

    async fn connections(&self, size: u32) -> Connections {
        let most = usize::try_from(size).unwrap();
        let manager = || AsyncDieselConnectionManager::<AsyncPgConnection>::new(&self.url);
        match self.kind {
            PoolKind::Bb8 => {
                let pool = bb8::Pool::builder().max_size(size);
                let pool = pool.connection_timeout(self.checkout);
                Connections::Bb8(pool.build(manager()).await.unwrap())
            }
            PoolKind::Deadpool => {
                let pool = deadpool::Pool::builder(manager()).max_size(most);
                let pool = pool.runtime(::deadpool::Runtime::Tokio1);
                let pool = pool.wait_timeout(Some(self.checkout));
                Connections::Deadpool(pool.build().unwrap())
            }
            PoolKind::Mobc => {
                let pool = mobc::Pool::builder().max_open(u64::from(size));
                Connections::Mobc(pool.get_timeout(Some(self.checkout)).build(manager()))
            }
            PoolKind::SeaOrm => {
                let mut options = ConnectOptions::new(&self.url);
                options.max_connections(size).sqlx_logging(false);
                options.acquire_timeout(self.checkout);
                Connections::SeaOrm(Database::connect(options).await.unwrap())
            }
            PoolKind::Sqlx => {
                let pool = PgPoolOptions::new().max_connections(size);
                let pool = pool.acquire_timeout(self.checkout);
                Connections::Sqlx(pool.connect(&self.url).await.unwrap())
            }
            PoolKind::TokioPostgres => {
                let manager = PostgresConnectionManager::new(self.url.parse().unwrap(), NoTls);
                let pool = ::bb8::Pool::builder().max_size(size);
                let pool = pool.connection_timeout(self.checkout);
                Connections::TokioPostgres(pool.build(manager).await.unwrap())
            }
            PoolKind::DeadpoolPostgres => {
                let manager = deadpool_postgres::Manager::new(self.url.parse().unwrap(), NoTls);
                let pool = deadpool_postgres::Pool::builder(manager).max_size(most);
                let pool = pool.runtime(deadpool_postgres::Runtime::Tokio1);
                let pool = pool.wait_timeout(Some(self.checkout));
                Connections::DeadpoolPostgres(pool.build().unwrap())
            }
            PoolKind::R2d2 => {
                let pool = diesel::r2d2::Pool::builder()
                    .max_size(size)
                    .min_idle(Some(0));
                let pool = pool.connection_timeout(self.checkout);
                Connections::R2d2(pool.build_unchecked(ConnectionManager::new(&self.url)))
            }
        }
    }

    /// Creates a lock manager with a pool of its own.
    pub(crate) async fn manager(&self, options: LockManagerOptions) -> TestManager {
        self.pool(4).await.manager(options)
    }
}

/// Evaluates the first expression for an async pool, and the second one for the blocking pool.
macro_rules! with {
    ($pool:expr, $some:ident => $async:expr, $blocking:expr) => {
        match $pool {
            Connections::Bb8($some) => $async,
            Connections::Deadpool($some) => $async,
            Connections::Mobc($some) => $async,
            Connections::SeaOrm($some) => $async,
            Connections::Sqlx($some) => $async,
            Connections::TokioPostgres($some) => $async,
            Connections::DeadpoolPostgres($some) => $async,
            Connections::R2d2($some) => $blocking,
        }
    };
}

impl Pool {
    pub(crate) fn manager(&self, options: LockManagerOptions) -> TestManager {
        self.try_manager(options).unwrap()
    }

    pub(crate) fn try_manager(
        &self,
        options: LockManagerOptions,
    ) -> Result<TestManager, LockError> {
        let manager = with!(&self.connections,
            pool => LockManager::over_async_pool_with(pool.clone(), options),
            LockManager::over_blocking_pool_with(pool.clone(), options));
        manager.map(|manager| TestManager {
            manager,
            caller: self.caller,
        })
    }

    /// Closes the pool and waits until it is closed. Some pools have no such method.
    pub(crate) async fn close(&self) {
        match &self.connections {
            Connections::SeaOrm(pool) => pool.clone().close().await.unwrap(),
            Connections::Sqlx(pool) => pool.close().await,
            Connections::Deadpool(pool) => pool.close(),
            Connections::DeadpoolPostgres(pool) => pool.close(),
            Connections::Bb8(_)
            | Connections::Mobc(_)
            | Connections::TokioPostgres(_)
            | Connections::R2d2(_) => {}
        }
    }

    /// Acquires a lock on a connection of this pool, without a lock manager.
    pub(crate) async fn with_plain_lock(
        &self,
        key: &LockKey,
        options: LockOptions,
        meanwhile: impl AsyncFnOnce(),
    ) -> Result<(), LockError> {
        with!(&self.connections, pool => {
            let guard = pool.acquire_advisory_lock(key, options).await?;
            meanwhile().await;
            guard.release().await
        }, {
            let guard = pool.acquire_advisory_lock(key, options)?;
            meanwhile().await;
            guard.release()
        })
    }

    /// Checks out several connections, and returns the process ids of their sessions.
    pub(crate) async fn pids(&self, count: usize) -> Vec<i64> {
        let ping = Statement::Batch(LockBatch::new(
            BatchMode::Execute,
            0,
            Vec::new(),
            TokenSource::TransactionId,
        ));
        let mut pids = Vec::new();
        with!(&self.connections, pool => {
            let mut out = Vec::new();
            for _ in 0..count {
                let mut conn = pool.checkout().await.unwrap();
                let row = conn.session_query(&ping).await.unwrap();
                pids.push(i64::from(BatchReply::from_row(row, 0).unwrap().pid));
                out.push(conn);
            }
        }, {
            let mut out = Vec::new();
            for _ in 0..count {
                let mut conn = pool.checkout().unwrap();
                let row = conn.session_query(&ping).unwrap();
                pids.push(i64::from(BatchReply::from_row(row, 0).unwrap().pid));
                out.push(conn);
            }
        });
        pids
    }
}
