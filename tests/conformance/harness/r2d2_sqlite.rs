//! An r2d2 pool of Diesel's `SqliteConnection`: one connection for each actor.

use diesel::connection::SimpleConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Error, Pool};
use diesel::sqlite::SqliteConnection;

use super::no_locks::{self, without_locks};
use crate::actor::ActorChannel;
use crate::actor_pooled;
use crate::fixture::Harness;

pub(crate) struct R2d2Sqlite;

pub(crate) fn new() -> R2d2Sqlite {
    R2d2Sqlite
}

#[derive(Debug)]
struct Prepare;

impl CustomizeConnection<SqliteConnection, Error> for Prepare {
    fn on_acquire(&self, conn: &mut SqliteConnection) -> Result<(), Error> {
        conn.batch_execute(no_locks::TABLE)
            .map_err(Error::QueryError)
    }
}

impl Harness for R2d2Sqlite {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        Box::new(|channel| {
            let manager = ConnectionManager::<SqliteConnection>::new(":memory:");
            let pool = Pool::builder()
                .max_size(1)
                .connection_customizer(Box::new(Prepare))
                .build(manager)
                .expect("SQLite opens");
            actor_pooled::pool(&pool, channel);
        })
    }

    without_locks!();
}
