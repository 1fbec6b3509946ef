//! diesel-async: connections of both databases, and the pools.

use advisory_locking::{AsyncLockPool, AsyncLockSession};
use diesel::sqlite::SqliteConnection;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError, bb8, deadpool,
};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::no_locks::{self, Sql, without_locks};
use super::postgres::{self, Observer, Text, on_postgres};
use crate::actor::{Mail, Outcome, Raw};
use crate::serve_async::{self, AsyncClient, on_runtime};
use crate::stage::Harness;

async fn connect(url: &str) -> diesel::ConnectionResult<AsyncPgConnection> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    conn.batch_execute(postgres::TABLE)
        .await
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

fn manager() -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|url| Box::pin(connect(url)));
    AsyncDieselConnectionManager::new_with_config(postgres::url(), config)
}

async fn actor_of_pool<P: AsyncLockPool<Session: AsyncClient>>(pool: P, mail: &Mail) {
    serve_async::pool(&pool, mail).await;
}

/// diesel-async's manager with a check for mobc that means what it says, so that a pool of one is one session: the cases count rows
/// of a temporary table.
struct Mended(AsyncDieselConnectionManager<AsyncPgConnection>);

#[::mobc::async_trait]
impl ::mobc::Manager for Mended {
    type Connection = AsyncPgConnection;
    type Error = PoolError;

    async fn connect(&self) -> Result<AsyncPgConnection, PoolError> {
        ::mobc::Manager::connect(&self.0).await
    }

    async fn check(&self, conn: AsyncPgConnection) -> Result<AsyncPgConnection, PoolError> {
        ::mobc::Manager::check(&self.0, conn).await
    }

    fn validate(&self, conn: &mut AsyncPgConnection) -> bool {
        !AsyncLockSession::transaction_state(conn).is_broken()
    }
}

macro_rules! harness {
    ($($name:ident, $new:ident: |$mail:ident| $actor:expr;)*) => {$(
        pub(crate) struct $name {
            observer: Observer,
        }

        pub(crate) fn $new() -> $name {
            $name { observer: Observer::new() }
        }

        impl Harness for $name {
            fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
                Box::new(|$mail| on_runtime(async { $actor }))
            }

            fn survives_panics(&self) -> bool {
                false
            }

            on_postgres!();
        }
    )*};
}
harness! {
    Connection, connection: |mail| {
        let mut conn = connect(&postgres::url()).await.expect("the server accepts connections");
        serve_async::connection(&mut conn, mail).await;
    };
    Bb8, bb8: |mail| {
        let pool = bb8::Pool::builder().max_size(1).build(manager()).await.expect("the server accepts connections");
        actor_of_pool(pool, mail).await;
    };
    Deadpool, deadpool: |mail| {
        let pool = deadpool::Pool::builder(manager()).max_size(1).build().expect("a pool can be made");
        actor_of_pool(pool, mail).await;
    };
    Mobc, mobc: |mail| {
        let pool = ::mobc::Pool::builder().max_open(1).build(Mended(manager()));
        actor_of_pool(pool, mail).await;
    };
}

impl AsyncClient for AsyncPgConnection {
    async fn raw(&mut self, raw: Raw) -> Outcome {
        match postgres::text(raw) {
            Text::Run(sql) => self
                .batch_execute(&sql)
                .await
                .map_or(Outcome::ClientFailed, |()| Outcome::Done),
            Text::Ask(sql) => {
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

pub(crate) struct Sqlite;

pub(crate) fn sqlite() -> Sqlite {
    Sqlite
}

impl Harness for Sqlite {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        Box::new(|mail| {
            on_runtime(async {
                let mut conn = SyncConnectionWrapper::<SqliteConnection>::establish(":memory:")
                    .await
                    .expect("SQLite opens");
                conn.batch_execute(no_locks::TABLE)
                    .await
                    .expect("a table can be made");
                serve_async::connection(&mut conn, mail).await;
            });
        })
    }

    fn survives_panics(&self) -> bool {
        false
    }

    without_locks!();
}

impl AsyncClient for SyncConnectionWrapper<SqliteConnection> {
    async fn raw(&mut self, raw: Raw) -> Outcome {
        let result = self
            .spawn_blocking(move |conn| {
                Ok(no_locks::raw(raw, |sql: Sql<'_>| {
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
