//! rusqlite's `Connection`.

use rusqlite::Connection;

use super::no_locks::{self, OnSqlite, Sql};
use crate::actor::{Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};

pub(crate) const RUSQLITE: OnSqlite = OnSqlite {
    sees_raw_transactions: true,
    ..OnSqlite::blocking(|channel| {
        let mut conn = Connection::open_in_memory().expect("SQLite opens");
        conn.execute_batch(no_locks::TABLE)
            .expect("a table can be made");
        actor_blocking::connection(&mut conn, channel);
    })
};

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
