//! Diesel's `SqliteConnection`.

use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;

use super::no_locks::{self, OnSqlite};
use crate::actor::{Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};

pub(crate) const DIESEL: OnSqlite = OnSqlite::blocking(|channel| {
    let mut conn = SqliteConnection::establish(":memory:").expect("SQLite opens");
    conn.batch_execute(no_locks::TABLE)
        .expect("a table can be made");
    actor_blocking::connection(&mut conn, channel);
});

impl Client for SqliteConnection {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        no_locks::run_sql(command, |sql| no_locks::diesel(self, sql))
    }

    fn begin_test(&mut self) -> Outcome {
        self.begin_test_transaction()
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}
