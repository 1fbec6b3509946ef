//! The pools, each with one connection, and helpers for any of them.

use std::future::Future;
use std::sync::Arc;

use advisory_locking::session::AsyncLockPool;
use advisory_locking::session::SessionError;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::pooled_connection::{bb8, deadpool, mobc};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, RunQueryDsl, TransactionManager};
use futures_util::FutureExt;
use testkit::server::url;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::adapters::{connect_async, establish, refresh, works};

/// A pool of one connection.
pub(crate) trait Pool:
    AsyncLockPool<Session = AsyncPgConnection, Connection: 'static> + Clone + Send + 'static
{
    const NAME: &str;

    /// `true` if the pool reuses a connection that works.
    const REUSES_CONNECTIONS: bool = true;

    fn open(url: &str) -> impl Future<Output = Self> + Send;
}

/// Asserts that the pool hands out a connection that works.
pub(crate) async fn assert_works<P: Pool>(pool: &P) {
    let mut conn = pool.checkout().await.unwrap();
    assert!(works(&mut conn).await, "{}: not a connection", P::NAME);
}

fn manager(url: &str) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|url| establish(url).boxed());
    AsyncDieselConnectionManager::new_with_config(url, config)
}

pub(crate) type Bb8 = bb8::Pool<AsyncPgConnection>;

impl Pool for Bb8 {
    const NAME: &str = "bb8";

    async fn open(url: &str) -> Self {
        let manager = manager(url);
        Self::builder().max_size(1).build(manager).await.unwrap()
    }
}

pub(crate) type Deadpool = deadpool::Pool<AsyncPgConnection>;

impl Pool for Deadpool {
    const NAME: &str = "deadpool";

    async fn open(url: &str) -> Self {
        let manager = manager(url);
        Self::builder(manager).max_size(1).build().unwrap()
    }
}

pub(crate) type Mobc = mobc::Pool<AsyncPgConnection>;

impl Pool for Mobc {
    const NAME: &str = "mobc";
    // diesel-async 0.9 inverts the result of its check for mobc: see `upstream_bugs`.
    const REUSES_CONNECTIONS: bool = false;

    async fn open(url: &str) -> Self {
        let manager = manager(url);
        // Without the health check, so that a broken connection would be handed out.
        Self::builder()
            .max_open(1)
            .test_on_check_out(false)
            .build(manager)
    }
}

/// A user's own pool: one connection behind a mutex, replaced at checkout if it is closed.
#[derive(Clone)]
pub(crate) struct MutexPool {
    conn: Arc<Mutex<AsyncPgConnection>>,
    url: String,
}

impl AsyncLockPool for MutexPool {
    type Session = AsyncPgConnection;
    type Connection = OwnedMutexGuard<AsyncPgConnection>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let mut conn = Arc::clone(&self.conn).lock_owned().await;
        refresh(&mut conn, &self.url).await;
        Ok(conn)
    }
}

impl Pool for MutexPool {
    const NAME: &str = "no pool";

    async fn open(url: &str) -> Self {
        Self {
            conn: Arc::new(Mutex::new(connect_async(url).await)),
            url: url.to_owned(),
        }
    }
}

diesel::define_sql_function!(fn pg_backend_pid() -> Integer);

pub(crate) async fn pid(conn: &mut AsyncPgConnection) -> i32 {
    let pid = diesel::select(pg_backend_pid()).get_result(conn).await;
    pid.unwrap()
}

pub(crate) async fn pid_of_next<P: Pool>(pool: &P) -> i32 {
    pid(&mut pool.checkout().await.unwrap()).await
}

pub(crate) async fn begin(conn: &mut AsyncPgConnection) {
    AnsiTransactionManager::begin_transaction(conn)
        .await
        .unwrap();
}

pub(crate) async fn open<P: Pool>() -> P {
    P::open(&url()).await
}

/// Makes a test of each case for each pool.
macro_rules! on_every_pool {
    ($($case:ident)*) => {
        on_every_pool!(@pool no_pool, $crate::pools::MutexPool, $($case)*);
        on_every_pool!(@pool bb8_pool, $crate::pools::Bb8, $($case)*);
        on_every_pool!(@pool deadpool_pool, $crate::pools::Deadpool, $($case)*);
        on_every_pool!(@pool mobc_pool, $crate::pools::Mobc, $($case)*);
    };
    (@pool $name:ident, $pool:ty, $($case:ident)*) => {
        mod $name {
            $(
                #[test]
                fn $case() {
                    $crate::pools::in_runtime(super::$case::<$pool>());
                }
            )*
        }
    };
}
pub(crate) use on_every_pool;

/// Runs a case as `#[tokio::test]` does.
pub(crate) fn in_runtime(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(case);
}
