//! An r2d2 pool of Diesel's `PgConnection`: one connection for each actor.

use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Error, Pool};

use super::postgres::{self, Endpoint, Observer, POOL_LIMIT, on_postgres};
use crate::actor::ActorChannel;
use crate::actor_pooled;
use crate::fixture::Harness;

pub(crate) struct R2d2Postgres {
    endpoint: Endpoint,
    observer: Observer,
}

pub(crate) fn new() -> R2d2Postgres {
    at(&Endpoint::default())
}

pub(crate) fn at(endpoint: &Endpoint) -> R2d2Postgres {
    R2d2Postgres {
        endpoint: endpoint.clone(),
        observer: Observer::at(endpoint),
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
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        let url = self.endpoint.actors.clone();
        Box::new(move |channel| {
            let pool = Pool::builder()
                .max_size(1)
                .connection_timeout(POOL_LIMIT)
                .connection_customizer(Box::new(Prepare))
                .build(ConnectionManager::<PgConnection>::new(url))
                .expect("the server accepts connections");
            actor_pooled::pool(&pool, channel);
        })
    }

    on_postgres!();
}
