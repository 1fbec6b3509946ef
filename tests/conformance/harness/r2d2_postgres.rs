//! An r2d2 pool of Diesel's `PgConnection`: one connection for each actor.

use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Error, Pool};

use super::postgres::{self, Adapter, POOL_LIMIT};
use crate::actor_pooled;

pub(crate) const R2D2: Adapter = Adapter::Blocking(|url, channel| {
    let pool = Pool::builder()
        .max_size(1)
        .connection_timeout(POOL_LIMIT)
        .connection_customizer(Box::new(Prepare))
        .build(ConnectionManager::<PgConnection>::new(url))
        .expect("the server accepts connections");
    actor_pooled::pool(&pool, channel);
});

#[derive(Debug)]
struct Prepare;

impl CustomizeConnection<PgConnection, Error> for Prepare {
    fn on_acquire(&self, conn: &mut PgConnection) -> Result<(), Error> {
        postgres::prepare(conn).map_err(Error::QueryError)
    }
}
