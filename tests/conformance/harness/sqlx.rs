//! sqlx: connections and pools of one connection, on both databases.

use ::sqlx::postgres::PgPoolOptions;
use ::sqlx::sqlite::SqlitePoolOptions;
use ::sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection, raw_sql};
use advisory_locking::backends::sqlx::PooledPgConnection;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::no_locks::{self, OnSqlite, Sql};
use super::postgres::{self, Adapter, POOL_LIMIT, SqlText};
use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::actor_async::{self, AsyncClient, on_runtime};

pub(crate) const SQLX: Adapter = Adapter::AsyncWithRollback(|url, channel| {
    on_runtime(async {
        let conn = PgConnection::connect(url).await;
        let mut conn = conn.expect("the server accepts connections");
        actor_async::connection(&mut conn, channel).await;
    });
});

pub(crate) const SQLX_POOL: Adapter = Adapter::AsyncWithRollback(|url, channel| {
    on_runtime(async {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(POOL_LIMIT)
            .connect_lazy(url);
        actor_async::pool(&pool.expect("the address of the server"), channel).await;
    });
});

/// sqlx queues a rollback while it unwinds.
const fn rolling_back(run: fn(&ActorChannel)) -> OnSqlite {
    OnSqlite {
        survives_panics: true,
        ..OnSqlite::asynchronous(run)
    }
}

pub(crate) const SQLITE: OnSqlite = rolling_back(|channel| {
    on_runtime(async {
        let conn = SqliteConnection::connect("sqlite::memory:").await;
        let mut conn = conn.expect("SQLite opens");
        let prepared = conn.execute(no_locks::TABLE).await;
        prepared.expect("a table can be made");
        actor_async::connection(&mut conn, channel).await;
    });
});

pub(crate) const SQLITE_POOL: OnSqlite = rolling_back(|channel| {
    on_runtime(async {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .after_connect(|conn, _| {
                Box::pin(async move { conn.execute(no_locks::TABLE).await.map(drop) })
            })
            .connect("sqlite::memory:")
            .await;
        actor_async::pool(&pool.expect("SQLite opens"), channel).await;
    });
});

async fn run_on_postgres(conn: &mut PgConnection, command: SqlCommand) -> Outcome {
    match postgres::sql_text(command) {
        SqlText::Run(sql) => raw_sql(AssertSqlSafe(sql))
            .execute(conn)
            .await
            .map_or(Outcome::ClientFailed, |_| Outcome::Done),
        SqlText::Query(sql) => ::sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(conn)
            .await
            .map_or(Outcome::ClientFailed, Outcome::Answered),
    }
}

impl AsyncClient for PgConnection {
    async fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        run_on_postgres(self, command).await
    }

    /// sqlx has no test transactions.
    async fn begin_test(&mut self) -> Outcome {
        Outcome::Unsupported
    }
}

impl AsyncClient for PooledPgConnection {
    async fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        run_on_postgres(self, command).await
    }

    async fn begin_test(&mut self) -> Outcome {
        Outcome::Unsupported
    }
}

impl AsyncClient for SqliteConnection {
    async fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        no_locks::run_sql(command, |sql| {
            block_in_place(|| Handle::current().block_on(on_sqlite(self, sql))).map_err(drop)
        })
    }

    async fn begin_test(&mut self) -> Outcome {
        Outcome::Unsupported
    }
}

async fn on_sqlite(conn: &mut SqliteConnection, sql: Sql<'_>) -> ::sqlx::Result<i64> {
    match sql {
        Sql::Run(sql) => raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(|_| 0),
        Sql::Query(sql) => raw_sql(AssertSqlSafe(sql))
            .fetch_one(conn)
            .await?
            .try_get(0),
    }
}
