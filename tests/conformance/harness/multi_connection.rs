//! An enum of connections, made by Diesel and delegated to, with PostgreSQL inside.

use advisory_locking::session::{DelegateLockSession, LockSession};
use diesel::pg::PgConnection;
use diesel::sqlite::SqliteConnection;

use super::no_locks;
use super::postgres::{self, Observer, on_postgres};
use crate::actor::{Mail, Outcome, Raw};
use crate::serve::{self, Client};
use crate::stage::Harness;

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
    fn raw(&mut self, raw: Raw) -> Outcome {
        match self {
            Self::Postgres(conn) => postgres::raw(conn, raw),
            Self::Sqlite(conn) => no_locks::raw(raw, |sql| no_locks::diesel(conn, sql)),
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
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        Box::new(|mail| {
            let mut conn = AnyConnection::Postgres(postgres::connect(&postgres::url()));
            serve::connection(&mut conn, mail);
        })
    }

    on_postgres!();
}
