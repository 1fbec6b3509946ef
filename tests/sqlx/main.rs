//! Tests of sqlx's own types: connections, transactions, pools and their hooks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod errors;
mod own_lock;
mod pools;
mod transactions;

use advisory_locking::LockOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use testkit::server::url;

const NO_WAIT: LockOptions = LockOptions::no_wait();

async fn connect() -> PgConnection {
    PgConnection::connect(&url()).await.unwrap()
}

async fn pool_of(size: u32) -> PgPool {
    let options = PgPoolOptions::new().max_connections(size);
    options.connect(&url()).await.unwrap()
}

async fn pid(conn: &mut PgConnection) -> i32 {
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn);
    pid.await.unwrap()
}

/// Adds a row to a table of numbers.
async fn insert(conn: &mut PgConnection, table: &str) -> sqlx::Result<()> {
    let insert = format!("INSERT INTO {table} VALUES (1)");
    conn.execute(AssertSqlSafe(insert)).await.map(drop)
}
