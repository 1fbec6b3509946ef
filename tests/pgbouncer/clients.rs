//! What runs in an actor: a client of its own, connected to a pooler.

use std::sync::atomic::{AtomicU32, Ordering};

use advisory_locking::session::{DelegateLockSession, LockSession};
use diesel::connection::{CacheSize, SimpleConnection};
use diesel::pg::PgConnection;
use diesel::{Connection, QueryResult, RunQueryDsl, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use sea_orm::SqlxPostgresConnector;
use sea_orm::sqlx::Executor;
use sea_orm::sqlx::postgres::PgPoolOptions;

use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::actor_async;
use crate::actor_blocking;
use crate::harness::pooled::Client;
use crate::harness::postgres::{self, Number, SqlText};

/// Diesel's `PgConnection` as it comes.
pub(crate) const DIESEL: Client = Client::Blocking(diesel);
/// diesel-async's `AsyncPgConnection` as it comes.
pub(crate) const DIESEL_ASYNC: Client = Client::Async(diesel_async);
/// SeaORM's `DatabaseConnection` as it comes, a pool of one.
pub(crate) const SEA_ORM: Client = Client::Async(sea_orm);
/// Diesel's `PgConnection` without named prepared statements, which PgBouncer loses before version 1.21.
pub(crate) const DIESEL_UNPREPARED: Client = Client::Blocking(diesel_unprepared);

fn diesel(url: &str, channel: &ActorChannel) {
    let mut conn = PgConnection::establish(url).expect("the pooler accepts connections");
    postgres::prepare(&mut conn).expect("a temporary table can be made");
    actor_blocking::connection(&mut conn, channel);
}

fn diesel_async(url: &str, channel: &ActorChannel) {
    actor_async::on_runtime(async {
        let mut conn = AsyncPgConnection::establish(url)
            .await
            .expect("the pooler accepts connections");
        conn.batch_execute(postgres::TABLE)
            .await
            .expect("a temporary table can be made");
        actor_async::connection(&mut conn, channel).await;
    });
}

fn sea_orm(url: &str, channel: &ActorChannel) {
    actor_async::on_runtime(async {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .after_connect(|conn, _| {
                Box::pin(async move { conn.execute(postgres::TABLE).await.map(drop) })
            })
            .connect(url)
            .await
            .expect("the pooler accepts connections");
        let db = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
        actor_async::pool(&db, channel).await;
    });
}

fn diesel_unprepared(url: &str, channel: &ActorChannel) {
    let mut conn = unprepared(url);
    let mut client = Unprepared::new(&mut conn).expect("a table can be made");
    actor_blocking::connection(&mut client, channel);
}

pub(crate) fn unprepared(url: &str) -> PgConnection {
    let mut conn = PgConnection::establish(url).expect("the pooler accepts connections");
    conn.set_prepared_statement_cache_size(CacheSize::Disabled);
    conn
}

/// With a table of its own, because a temporary one would stay with a session of the pooler's.
struct Unprepared<'c> {
    conn: &'c mut PgConnection,
    table: String,
}

impl<'c> Unprepared<'c> {
    fn new(conn: &'c mut PgConnection) -> QueryResult<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let table = format!("al_written_{}_{number}", std::process::id());
        conn.batch_execute(&format!("CREATE TABLE {table} (number integer)"))?;
        Ok(Self { conn, table })
    }
}

impl Drop for Unprepared<'_> {
    fn drop(&mut self) {
        // By another way, for this connection may be condemned.
        if let Ok(mut server) = PgConnection::establish(&postgres::url()) {
            let _ = server.batch_execute(&format!("DROP TABLE IF EXISTS {}", self.table));
        }
    }
}

impl DelegateLockSession for Unprepared<'_> {
    fn session(&mut self) -> &mut dyn LockSession {
        self.conn
    }
}

impl actor_blocking::Client for Unprepared<'_> {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        let own = |sql: String| sql.replace("written", &self.table);
        match postgres::sql_text(command) {
            SqlText::Run(sql) => {
                let ran = self.conn.batch_execute(&own(sql));
                ran.map_or(Outcome::ClientFailed, |()| Outcome::Done)
            }
            SqlText::Query(sql) => {
                let answer = sql_query(own(sql)).get_result::<Number>(self.conn);
                answer.map_or(Outcome::ClientFailed, |row| Outcome::Answered(row.number))
            }
        }
    }
}
