//! diesel-async: connections of both databases, and the pools.

use ::mobc::Manager;
use advisory_locking::session::AsyncLockSession;
use diesel::sqlite::SqliteConnection;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError, deadpool,
};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::no_locks::{self, OnSqlite, Sql};
use super::postgres::{self, Adapter, POOL_LIMIT, SqlText};
use crate::actor::{Outcome, SqlCommand};
use crate::actor_async::{self, AsyncClient, on_runtime};

async fn open(url: &str) -> diesel::ConnectionResult<Sqlite> {
    let mut conn = Sqlite::establish(url).await?;
    conn.batch_execute(no_locks::TABLE)
        .await
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

fn manager(url: &str) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    AsyncDieselConnectionManager::new(url)
}

fn manager_of_sqlite() -> AsyncDieselConnectionManager<Sqlite> {
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|url| Box::pin(open(url)));
    AsyncDieselConnectionManager::new_with_config(":memory:", config)
}

/// diesel-async's manager for mobc with a corrected `validate`, which diesel-async 0.9 inverts (see
/// `tests/cancellation`). A pool of one then keeps its session, as the cases require: they count
/// its writes.
struct FixedMobcManager<C>(AsyncDieselConnectionManager<C>);

#[::mobc::async_trait]
impl<C> Manager for FixedMobcManager<C>
where
    C: AsyncLockSession + 'static,
    AsyncDieselConnectionManager<C>: Manager<Connection = C, Error = PoolError>,
{
    type Connection = C;
    type Error = PoolError;

    async fn connect(&self) -> Result<C, PoolError> {
        self.0.connect().await
    }

    async fn check(&self, conn: C) -> Result<C, PoolError> {
        self.0.check(conn).await
    }

    fn validate(&self, conn: &mut C) -> bool {
        !conn.session_transaction_state().is_broken()
    }
}

/// Runs an actor on a pool of one connection.
macro_rules! serve {
    (bb8 $manager:expr, $channel:expr) => {{
        let pool = ::bb8::Pool::builder()
            .max_size(1)
            .connection_timeout(POOL_LIMIT)
            .build($manager)
            .await;
        actor_async::pool(&pool.expect("connections can be made"), $channel).await;
    }};
    (deadpool $manager:expr, $channel:expr) => {{
        let pool = deadpool::Pool::builder($manager).max_size(1).build();
        actor_async::pool(&pool.expect("a pool can be made"), $channel).await;
    }};
    (mobc $manager:expr, $channel:expr) => {{
        let pool = ::mobc::Pool::builder()
            .max_open(1)
            .build(FixedMobcManager($manager));
        actor_async::pool(&pool, $channel).await;
    }};
}

pub(crate) const DIESEL_ASYNC: Adapter = Adapter::Async(|url, channel| {
    on_runtime(async {
        let conn = AsyncPgConnection::establish(url).await;
        let mut conn = conn.expect("the server accepts connections");
        actor_async::connection(&mut conn, channel).await;
    });
});

pub(crate) const BB8: Adapter = Adapter::Async(|url, channel| {
    on_runtime(async { serve!(bb8 manager(url), channel) });
});

pub(crate) const DEADPOOL: Adapter = Adapter::Async(|url, channel| {
    on_runtime(async { serve!(deadpool manager(url), channel) });
});

pub(crate) const MOBC: Adapter = Adapter::Async(|url, channel| {
    on_runtime(async { serve!(mobc manager(url), channel) });
});

impl AsyncClient for AsyncPgConnection {
    async fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        match postgres::sql_text(command) {
            SqlText::Run(sql) => self
                .batch_execute(&sql)
                .await
                .map_or(Outcome::ClientFailed, |()| Outcome::Done),
            SqlText::Query(sql) => {
                let row = diesel::sql_query(sql)
                    .get_result::<postgres::Number>(self)
                    .await;
                row.map_or(Outcome::ClientFailed, |row| Outcome::Answered(row.number))
            }
        }
    }

    async fn begin_test(&mut self) -> Outcome {
        self.begin_test_transaction()
            .await
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}

type Sqlite = SyncConnectionWrapper<SqliteConnection>;

pub(crate) const SQLITE: OnSqlite = OnSqlite::asynchronous(|channel| {
    on_runtime(async {
        let mut conn = open(":memory:").await.expect("SQLite opens");
        actor_async::connection(&mut conn, channel).await;
    });
});

pub(crate) const SQLITE_BB8: OnSqlite = OnSqlite::asynchronous(|channel| {
    on_runtime(async { serve!(bb8 manager_of_sqlite(), channel) });
});

pub(crate) const SQLITE_DEADPOOL: OnSqlite = OnSqlite::asynchronous(|channel| {
    on_runtime(async { serve!(deadpool manager_of_sqlite(), channel) });
});

pub(crate) const SQLITE_MOBC: OnSqlite = OnSqlite::asynchronous(|channel| {
    on_runtime(async { serve!(mobc manager_of_sqlite(), channel) });
});

impl AsyncClient for Sqlite {
    async fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        let result = self
            .spawn_blocking(move |conn| {
                Ok(no_locks::run_sql(command, |sql: Sql<'_>| {
                    no_locks::diesel(conn, sql)
                }))
            })
            .await;
        result.unwrap_or(Outcome::ClientFailed)
    }

    async fn begin_test(&mut self) -> Outcome {
        self.begin_test_transaction()
            .await
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}
