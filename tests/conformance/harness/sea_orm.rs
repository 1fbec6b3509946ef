//! SeaORM's `DatabaseConnection`, a pool of one connection, on both databases.

use sea_orm::sqlx::Executor;
use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr, SqlxPostgresConnector,
    Statement,
};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use advisory_locking::backends::sea_orm::PinnedConnection;

use super::no_locks::{self, Sql, without_locks};
use super::postgres::{self, Observer, POOL_LIMIT, Place, Text, on_postgres};
use crate::actor::{Mail, Outcome, Raw};
use crate::serve_async::{self, AsyncClient, on_runtime};
use crate::stage::Harness;

pub(crate) struct OnPostgres {
    place: Place,
    observer: Observer,
}

pub(crate) fn on_postgres() -> OnPostgres {
    at(&Place::here())
}

pub(crate) fn at(place: &Place) -> OnPostgres {
    OnPostgres {
        place: place.clone(),
        observer: Observer::at(place),
    }
}

async fn connect(url: &str) -> sea_orm::sqlx::Result<DatabaseConnection> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(POOL_LIMIT)
        .after_connect(|conn, _| {
            Box::pin(async move { conn.execute(postgres::TABLE).await.map(drop) })
        })
        .connect(url)
        .await?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

impl Harness for OnPostgres {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        let url = self.place.actors.clone();
        Box::new(move |mail| {
            on_runtime(async {
                let db = connect(&url).await.expect("the server accepts connections");
                serve_async::pool(&db, mail).await;
            });
        })
    }

    fn survives_panics(&self) -> bool {
        false
    }

    on_postgres!();
}

pub(crate) struct OnSqlite;

pub(crate) fn on_sqlite() -> OnSqlite {
    OnSqlite
}

impl Harness for OnSqlite {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        Box::new(|mail| {
            on_runtime(async {
                let mut options = ConnectOptions::new("sqlite::memory:");
                options.max_connections(1).sqlx_logging(false);
                let db = Database::connect(options).await.expect("SQLite opens");
                db.execute_unprepared(no_locks::TABLE)
                    .await
                    .expect("a table can be made");
                serve_async::pool(&db, mail).await;
            });
        })
    }

    fn survives_panics(&self) -> bool {
        false
    }

    without_locks!();
}

impl AsyncClient for PinnedConnection {
    async fn raw(&mut self, raw: Raw) -> Outcome {
        if self.get_database_backend() == sea_orm::DbBackend::Sqlite {
            return no_locks::raw(raw, |sql| {
                block_in_place(|| Handle::current().block_on(on_sqlite_connection(self, sql)))
                    .map_err(drop)
            });
        }
        match postgres::text(raw) {
            Text::Run(sql) => self
                .execute_unprepared(&sql)
                .await
                .map_or(Outcome::ClientFailed, |_| Outcome::Done),
            Text::Ask(sql) => number(self, &sql)
                .await
                .map_or(Outcome::ClientFailed, Outcome::Answered),
        }
    }

    /// SeaORM has no transaction for tests.
    async fn begin_test(&mut self) -> Outcome {
        Outcome::Absent
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
        Sql::Ask(sql) => number(conn, sql).await.map(Option::unwrap_or_default),
    }
}
