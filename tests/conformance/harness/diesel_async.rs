//! diesel-async: connections of both databases, and the pools.

use ::mobc::Manager;
use advisory_locking::session::AsyncLockSession;
use diesel::sqlite::SqliteConnection;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError, deadpool,
};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::no_locks::{self, Sql, without_locks};
use super::postgres::{self, Observer, POOL_LIMIT, Place, Text, on_postgres};
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

async fn open(url: &str) -> diesel::ConnectionResult<Sqlite> {
    let mut conn = Sqlite::establish(url).await?;
    conn.batch_execute(no_locks::TABLE)
        .await
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

fn manager(url: &str) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|url| Box::pin(connect(url)));
    AsyncDieselConnectionManager::new_with_config(url, config)
}

fn manager_of_sqlite() -> AsyncDieselConnectionManager<Sqlite> {
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|url| Box::pin(open(url)));
    AsyncDieselConnectionManager::new_with_config(":memory:", config)
}

/// diesel-async's manager with a check for mobc that means what it says, so that a pool of one is one session: the cases count rows
/// of a temporary table.
struct Mended<C>(AsyncDieselConnectionManager<C>);

#[::mobc::async_trait]
impl<C> Manager for Mended<C>
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

/// Serves an actor with a pool of one.
macro_rules! serve {
    (bb8 $manager:expr, $mail:expr) => {{
        let pool = ::bb8::Pool::builder()
            .max_size(1)
            .connection_timeout(POOL_LIMIT)
            .build($manager)
            .await;
        serve_async::pool(&pool.expect("connections can be made"), $mail).await;
    }};
    (deadpool $manager:expr, $mail:expr) => {{
        let pool = deadpool::Pool::builder($manager).max_size(1).build();
        serve_async::pool(&pool.expect("a pool can be made"), $mail).await;
    }};
    (mobc $manager:expr, $mail:expr) => {{
        let pool = ::mobc::Pool::builder().max_open(1).build(Mended($manager));
        serve_async::pool(&pool, $mail).await;
    }};
}

macro_rules! harness {
    ($($name:ident, $new:ident, $at:ident: |$url:ident, $mail:ident| $actor:expr;)*) => {$(
        pub(crate) struct $name {
            place: Place,
            observer: Observer,
        }

        pub(crate) fn $new() -> $name {
            $at(&Place::here())
        }

        pub(crate) fn $at(place: &Place) -> $name {
            $name { place: place.clone(), observer: Observer::at(place) }
        }

        impl Harness for $name {
            fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
                let $url = self.place.actors.clone();
                Box::new(move |$mail| on_runtime(async { $actor }))
            }

            fn survives_panics(&self) -> bool {
                false
            }

            on_postgres!();
        }
    )*};
}
harness! {
    Connection, connection, connection_at: |url, mail| {
        let mut conn = connect(&url).await.expect("the server accepts connections");
        serve_async::connection(&mut conn, mail).await;
    };
    Bb8, bb8, bb8_at: |url, mail| serve!(bb8 manager(&url), mail);
    Deadpool, deadpool, deadpool_at: |url, mail| serve!(deadpool manager(&url), mail);
    Mobc, mobc, mobc_at: |url, mail| serve!(mobc manager(&url), mail);
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

type Sqlite = SyncConnectionWrapper<SqliteConnection>;

macro_rules! harness_of_sqlite {
    ($($name:ident, $new:ident: |$mail:ident| $actor:expr;)*) => {$(
        pub(crate) struct $name;

        pub(crate) fn $new() -> $name {
            $name
        }

        impl Harness for $name {
            fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
                Box::new(|$mail| on_runtime(async { $actor }))
            }

            fn survives_panics(&self) -> bool {
                false
            }

            without_locks!();
        }
    )*};
}
harness_of_sqlite! {
    SqliteConnected, sqlite: |mail| {
        let mut conn = open(":memory:").await.expect("SQLite opens");
        serve_async::connection(&mut conn, mail).await;
    };
    SqliteBb8, sqlite_bb8: |mail| serve!(bb8 manager_of_sqlite(), mail);
    SqliteDeadpool, sqlite_deadpool: |mail| serve!(deadpool manager_of_sqlite(), mail);
    SqliteMobc, sqlite_mobc: |mail| serve!(mobc manager_of_sqlite(), mail);
}

impl AsyncClient for Sqlite {
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
