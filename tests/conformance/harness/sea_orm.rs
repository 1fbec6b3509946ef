//! SeaORM's `DatabaseConnection`, a pool of one connection, on both databases.

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbErr, SqlxPostgresConnector, Statement};
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use advisory_locking::backends::sea_orm::PinnedConnection;

use super::no_locks::{self, OnSqlite, Sql};
use super::postgres::{self, Adapter, POOL_LIMIT, SqlText};
use crate::actor::{Outcome, SqlCommand};
use crate::actor_async::{self, AsyncClient, on_runtime};

pub(crate) const SEA_ORM: Adapter = Adapter::Async(|url, channel| {
    on_runtime(async {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(POOL_LIMIT)
            .connect_lazy(url);
        let pool = pool.expect("the address of the server");
        let db = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
        actor_async::pool(&db, channel).await;
    });
});

pub(crate) const SQLITE: OnSqlite = OnSqlite {
    ends_raw_transactions: true,
    ..OnSqlite::asynchronous(|channel| {
        on_runtime(async {
            let mut options = ConnectOptions::new("sqlite::memory:");
            options.max_connections(1).sqlx_logging(false);
            let db = Database::connect(options).await.expect("SQLite opens");
            db.execute_unprepared(no_locks::TABLE)
                .await
                .expect("a table can be made");
            actor_async::pool(&db, channel).await;
        });
    })
};

impl AsyncClient for PinnedConnection {
    async fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        if self.get_database_backend() == sea_orm::DbBackend::Sqlite {
            return no_locks::run_sql(command, |sql| {
                block_in_place(|| Handle::current().block_on(on_sqlite_connection(self, sql)))
                    .map_err(drop)
            });
        }
        match postgres::sql_text(command) {
            SqlText::Run(sql) => self
                .execute_unprepared(&sql)
                .await
                .map_or(Outcome::ClientFailed, |_| Outcome::Done),
            SqlText::Query(sql) => number(self, &sql)
                .await
                .map_or(Outcome::ClientFailed, Outcome::Answered),
        }
    }

    /// SeaORM has no test transactions.
    async fn begin_test(&mut self) -> Outcome {
        Outcome::Unsupported
    }
}

async fn number(conn: &PinnedConnection, sql: &str) -> Result<Option<i64>, DbErr> {
    let statement = Statement::from_string(conn.get_database_backend(), sql);
    let row = conn.query_one_raw(statement).await?;
    row.ok_or_else(|| DbErr::RecordNotFound(sql.to_owned()))?
        .try_get_by_index(0)
}

async fn on_sqlite_connection(conn: &PinnedConnection, sql: Sql<'_>) -> Result<i64, DbErr> {
    match sql {
        Sql::Run(sql) => conn.execute_unprepared(sql).await.map(|_| 0),
        Sql::Query(sql) => number(conn, sql).await.map(Option::unwrap_or_default),
    }
}
