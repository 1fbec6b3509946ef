//! The clients on PostgreSQL, as one type.

use std::future::Future;

use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::backends::sqlx::PooledPgConnection;
use advisory_locking::{
    AdvisoryLocking, AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind,
    LockKey, LockOptions, PooledAdvisoryLocking,
};
use diesel::Connection;
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::server::fresh_key;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    Diesel,
    R2d2,
    DieselAsync,
    Bb8,
    SeaOrm,
    Sqlx,
}

impl Client {
    pub(crate) const ALL: [Self; 6] = [
        Self::Diesel,
        Self::R2d2,
        Self::DieselAsync,
        Self::Bb8,
        Self::SeaOrm,
        Self::Sqlx,
    ];
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scope {
    Session,
    Transaction,
}

impl Scope {
    pub(crate) const BOTH: [Self; 2] = [Self::Session, Self::Transaction];
}

/// The result of a call with a body.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) result: Result<(), LockError>,
    pub(crate) body_ran: bool,
}

impl Called {
    pub(crate) fn kind(&self) -> Option<LockErrorKind> {
        self.result.as_ref().err().map(LockError::kind)
    }
}

/// Runs an empty body under a lock of its own, with a new connection to a server.
pub(crate) fn with_lock(client: Client, url: &str, scope: Scope, options: LockOptions) -> Called {
    with_lock_on(client, url, scope, options, fresh_key())
}

pub(crate) fn with_lock_on(
    client: Client,
    url: &str,
    scope: Scope,
    options: LockOptions,
    key: LockKey,
) -> Called {
    let mut body_ran = false;
    let result = match client {
        Client::Diesel => {
            let body = |_: &mut PgConnection| {
                body_ran = true;
                Ok(())
            };
            let mut conn = PgConnection::establish(url).unwrap();
            match scope {
                Scope::Session => conn.with_advisory_lock(key, options, body),
                Scope::Transaction => conn.with_advisory_xact_lock(key, options, body),
            }
        }
        Client::R2d2 => {
            let body = |_: &mut PgConnection| {
                body_ran = true;
                Ok(())
            };
            let pool = r2d2_pool(url, 1);
            match scope {
                Scope::Session => pool.with_advisory_lock(key, options, body),
                Scope::Transaction => pool.with_advisory_xact_lock(key, options, body),
            }
        }
        Client::DieselAsync => block_on(async {
            let mut conn = AsyncPgConnection::establish(url).await.unwrap();
            let body = async |_: &mut AsyncPgConnection| {
                body_ran = true;
                Ok(())
            };
            match scope {
                Scope::Session => conn.with_advisory_lock(key, options, body).await,
                Scope::Transaction => conn.with_advisory_xact_lock(key, options, body).await,
            }
        }),
        Client::Bb8 => block_on(async {
            let pool = bb8_pool(url, 1).await;
            let body = async |_: &mut AsyncPgConnection| {
                body_ran = true;
                Ok(())
            };
            match scope {
                Scope::Session => pool.with_advisory_lock(key, options, body).await,
                Scope::Transaction => pool.with_advisory_xact_lock(key, options, body).await,
            }
        }),
        Client::SeaOrm => block_on(async {
            let db = sea_orm(url, 1).await;
            let body = async |_: &mut PinnedConnection| {
                body_ran = true;
                Ok(())
            };
            match scope {
                Scope::Session => db.with_advisory_lock(key, options, body).await,
                Scope::Transaction => db.with_advisory_xact_lock(key, options, body).await,
            }
        }),
        Client::Sqlx => block_on(async {
            let pool = sqlx_pool(url, 1).await;
            let body = async |_: &mut PooledPgConnection| {
                body_ran = true;
                Ok(())
            };
            match scope {
                Scope::Session => pool.with_advisory_lock(key, options, body).await,
                Scope::Transaction => pool.with_advisory_xact_lock(key, options, body).await,
            }
        }),
    };
    Called { result, body_ran }
}

pub(crate) fn r2d2_pool(url: &str, size: u32) -> Pool<ConnectionManager<PgConnection>> {
    let manager = ConnectionManager::new(url);
    Pool::builder().max_size(size).build(manager).unwrap()
}

pub(crate) async fn bb8_pool(url: &str, size: u32) -> bb8::Pool<AsyncPgConnection> {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
    let pool = bb8::Pool::builder().max_size(size).build(manager);
    pool.await.unwrap()
}

pub(crate) async fn sea_orm(url: &str, size: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(size).sqlx_logging(false);
    Database::connect(options).await.unwrap()
}

pub(crate) async fn sqlx_pool(url: &str, size: u32) -> PgPool {
    let options = PgPoolOptions::new().max_connections(size);
    options.connect(url).await.unwrap()
}

/// Runs a future on a runtime of its own, whose other thread runs the client's tasks.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}
