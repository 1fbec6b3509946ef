//! A Diesel `MultiConnection` enum with PostgreSQL inside, which delegates its `LockSession`.

use advisory_locking::session::{DelegateLockSession, LockSession};
use diesel::pg::PgConnection;
use diesel::sqlite::SqliteConnection;
use testkit::server::connect_to;

use super::no_locks;
use super::postgres::{self, Adapter};
use crate::actor::{Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};

#[derive(diesel::MultiConnection)]
pub(crate) enum AnyConnection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl DelegateLockSession for AnyConnection {
    fn session(&mut self) -> &mut dyn LockSession {
        match self {
            Self::Postgres(conn) => conn,
            Self::Sqlite(conn) => conn,
        }
    }
}

impl Client for AnyConnection {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        match self {
            Self::Postgres(conn) => postgres::run_sql(conn, command),
            Self::Sqlite(conn) => no_locks::run_sql(command, |sql| no_locks::diesel(conn, sql)),
        }
    }

    fn begin_test(&mut self) -> Outcome {
        diesel::Connection::begin_test_transaction(self)
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}

pub(crate) const MULTI_CONNECTION: Adapter = Adapter::Blocking(|url, channel| {
    let mut conn = AnyConnection::Postgres(connect_to(url));
    actor_blocking::connection(&mut conn, channel);
});
