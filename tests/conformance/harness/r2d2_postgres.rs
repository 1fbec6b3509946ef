//! An r2d2 pool of Diesel's `PgConnection`: one connection for each actor.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Error, Pool};

use super::postgres::{self, Observer, on_postgres};
use crate::actor::Mail;
use crate::pooled;
use crate::stage::Harness;

pub(crate) struct R2d2Postgres {
    observer: Observer,
}

pub(crate) fn new() -> R2d2Postgres {
    R2d2Postgres {
        observer: Observer::new(),
    }
}

#[derive(Debug)]
struct Prepare;

impl CustomizeConnection<PgConnection, Error> for Prepare {
    fn on_acquire(&self, conn: &mut PgConnection) -> Result<(), Error> {
        postgres::prepare(conn).map_err(Error::QueryError)
    }
}

impl Harness for R2d2Postgres {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        Box::new(|mail| {
            let pool = Pool::builder()
                .max_size(1)
                .connection_timeout(Duration::from_secs(10))
                .connection_customizer(Box::new(Prepare))
                .build(ConnectionManager::<PgConnection>::new(postgres::url()))
                .expect("the server accepts connections");
            pooled::pool(&pool, mail);
        })
    }

    on_postgres!();
}
