//! An r2d2 pool of Diesel's `PgConnection`: one connection for each actor.

use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};

use super::postgres::{Adapter, POOL_LIMIT};
use crate::actor_pooled;

pub(crate) const R2D2: Adapter = Adapter::Blocking(|url, channel| {
    let pool = Pool::builder()
        .max_size(1)
        .connection_timeout(POOL_LIMIT)
        .build_unchecked(ConnectionManager::<PgConnection>::new(url));
    actor_pooled::pool(&pool, channel);
});
