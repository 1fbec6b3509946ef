//! An r2d2 pool of Diesel's `PgConnection`: one connection for each actor.

use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Error, Pool};

use super::postgres::{self, Observer, POOL_LIMIT, Place, on_postgres};
use crate::actor::Mail;
use crate::pooled;
use crate::stage::Harness;

pub(crate) struct R2d2Postgres {
    place: Place,
    observer: Observer,
}

pub(crate) fn new() -> R2d2Postgres {
    at(&Place::here())
}

pub(crate) fn at(place: &Place) -> R2d2Postgres {
    R2d2Postgres {
        place: place.clone(),
        observer: Observer::at(place),
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
        let url = self.place.actors.clone();
        Box::new(move |mail| {
            let pool = Pool::builder()
                .max_size(1)
                .connection_timeout(POOL_LIMIT)
                .connection_customizer(Box::new(Prepare))
                .build(ConnectionManager::<PgConnection>::new(url))
                .expect("the server accepts connections");
            pooled::pool(&pool, mail);
        })
    }

    on_postgres!();
}
