//! rusqlite's `Connection`.

use rusqlite::Connection;

use super::no_locks::{self, Sql, without_locks};
use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};
use crate::fixture::Harness;

pub(crate) struct Rusqlite;

pub(crate) fn new() -> Rusqlite {
    Rusqlite
}

impl Harness for Rusqlite {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        Box::new(|channel| {
            let mut conn = Connection::open_in_memory().expect("SQLite opens");
            conn.execute_batch(no_locks::TABLE)
                .expect("a table can be made");
            actor_blocking::connection(&mut conn, channel);
        })
    }

    /// SQLite reports an open transaction, but not its savepoints.
    fn counts_savepoints(&self) -> bool {
        false
    }

    fn sees_raw_transactions(&self) -> bool {
        true
    }

    without_locks!();
}

impl Client for Connection {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        no_locks::run_sql(command, |sql| {
            match sql {
                Sql::Run(sql) => self.execute_batch(sql).map(|()| 0),
                Sql::Query(sql) => self.query_row(sql, [], |row| row.get(0)),
            }
            .map_err(drop)
        })
    }
}
