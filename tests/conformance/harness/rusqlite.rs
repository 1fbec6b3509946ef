//! rusqlite's `Connection`.

use rusqlite::Connection;

use super::no_locks::{self, Sql, without_locks};
use crate::actor::{Mail, Outcome, Raw};
use crate::serve::{self, Client};
use crate::stage::Harness;

pub(crate) struct Rusqlite;

pub(crate) fn new() -> Rusqlite {
    Rusqlite
}

impl Harness for Rusqlite {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        Box::new(|mail| {
            let mut conn = Connection::open_in_memory().expect("SQLite opens");
            conn.execute_batch(no_locks::TABLE)
                .expect("a table can be made");
            serve::connection(&mut conn, mail);
        })
    }

    /// SQLite says whether a transaction is open, but not how deep.
    fn counts_savepoints(&self) -> bool {
        false
    }

    fn sees_raw_transactions(&self) -> bool {
        true
    }

    without_locks!();
}

impl Client for Connection {
    fn raw(&mut self, raw: Raw) -> Outcome {
        no_locks::raw(raw, |sql| {
            match sql {
                Sql::Run(sql) => self.execute_batch(sql).map(|()| 0),
                Sql::Ask(sql) => self.query_row(sql, [], |row| row.get(0)),
            }
            .map_err(drop)
        })
    }
}
