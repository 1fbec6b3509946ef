//! An r2d2 pool of Diesel's `SqliteConnection`: one connection for each actor.

use diesel::connection::SimpleConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Error, Pool};
use diesel::sqlite::SqliteConnection;

use super::no_locks::{self, OnSqlite};
use crate::actor_pooled;

pub(crate) const R2D2: OnSqlite = OnSqlite::blocking(|channel| {
    let pool = Pool::builder()
        .max_size(1)
        .connection_customizer(Box::new(Prepare))
        .build(ConnectionManager::<SqliteConnection>::new(":memory:"))
        .expect("SQLite opens");
    actor_pooled::pool(&pool, channel);
});

#[derive(Debug)]
struct Prepare;

impl CustomizeConnection<SqliteConnection, Error> for Prepare {
    fn on_acquire(&self, conn: &mut SqliteConnection) -> Result<(), Error> {
        conn.batch_execute(no_locks::TABLE)
            .map_err(Error::QueryError)
    }
}
