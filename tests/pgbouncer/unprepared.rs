//! Diesel without named prepared statements.

use advisory_locking::session::{DelegateLockSession, LockSession};
use diesel::connection::{CacheSize, SimpleConnection};
use diesel::pg::PgConnection;
use diesel::{Connection, RunQueryDsl, sql_query};
use testkit::temp::TempObject;

use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::actor_blocking;
use crate::harness::postgres::{self, Adapter, Number, SqlText};

/// Diesel's `PgConnection` without named prepared statements, which PgBouncer supports in
/// transaction mode since [1.21](https://www.pgbouncer.org/changelog.html).
pub(crate) const DIESEL_UNPREPARED: Adapter = Adapter::Blocking(diesel_unprepared);

fn diesel_unprepared(url: &str, channel: &ActorChannel) {
    let mut conn = unprepared(url);
    let mut client = Unprepared {
        conn: &mut conn,
        table: TempObject::create("TABLE", "(number integer)"),
    };
    actor_blocking::connection(&mut client, channel);
}

pub(crate) fn unprepared(url: &str) -> PgConnection {
    let mut conn = PgConnection::establish(url).expect("the pooler accepts connections");
    conn.set_prepared_statement_cache_size(CacheSize::Disabled);
    conn
}

/// A connection with a table of its own: a setting would belong to one of the pooler's sessions.
struct Unprepared<'c> {
    conn: &'c mut PgConnection,
    table: TempObject,
}

impl DelegateLockSession for Unprepared<'_> {
    fn session(&mut self) -> &mut dyn LockSession {
        self.conn
    }
}

impl actor_blocking::Client for Unprepared<'_> {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        let table = &self.table.name;
        let text = match command {
            SqlCommand::Write => SqlText::Run(format!("INSERT INTO {table} VALUES (1)")),
            SqlCommand::Count => SqlText::Query(format!("SELECT count(*) AS number FROM {table}")),
            command => postgres::sql_text(command),
        };
        match text {
            SqlText::Run(sql) => {
                let ran = self.conn.batch_execute(&sql);
                ran.map_or(Outcome::ClientFailed, |()| Outcome::Done)
            }
            SqlText::Query(sql) => {
                let answer = sql_query(sql).get_result::<Number>(self.conn);
                answer.map_or(Outcome::ClientFailed, |row| Outcome::Answered(row.number))
            }
        }
    }
}
