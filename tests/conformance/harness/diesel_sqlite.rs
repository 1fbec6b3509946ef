//! Diesel's `SqliteConnection`.

use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;

use super::no_locks::{self, without_locks};
use crate::actor::{Mail, Outcome, Raw};
use crate::serve::{self, Client};
use crate::stage::Harness;

pub(crate) struct DieselSqlite;

pub(crate) fn new() -> DieselSqlite {
    DieselSqlite
}

impl Harness for DieselSqlite {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        Box::new(|mail| {
            let mut conn = SqliteConnection::establish(":memory:").expect("SQLite opens");
            conn.batch_execute(no_locks::TABLE)
                .expect("a table can be made");
            serve::connection(&mut conn, mail);
        })
    }

    without_locks!();
}

impl Client for SqliteConnection {
    fn raw(&mut self, raw: Raw) -> Outcome {
        no_locks::raw(raw, |sql| no_locks::diesel(self, sql))
    }

    fn begin_test(&mut self) -> Outcome {
        self.begin_test_transaction()
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}
