//! A Diesel `MultiConnection` enum with PostgreSQL inside, which delegates its `LockSession`.

use advisory_locking::session::{DelegateLockSession, LockSession};
use diesel::pg::PgConnection;
use diesel::sqlite::SqliteConnection;

use super::no_locks;
use super::postgres::{self, Observer, on_postgres};
use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};
use crate::fixture::Harness;

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

pub(crate) struct MultiConnection {
    observer: Observer,
}

pub(crate) fn new() -> MultiConnection {
    MultiConnection {
        observer: Observer::new(),
    }
}

impl Harness for MultiConnection {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        Box::new(|channel| {
            let mut conn = AnyConnection::Postgres(postgres::connect(&postgres::url()));
            actor_blocking::connection(&mut conn, channel);
        })
    }

    on_postgres!();
}
