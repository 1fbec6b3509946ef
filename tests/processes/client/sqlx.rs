//! Clients of sqlx. They drop some futures, and some bodies write in a nested transaction.

use std::time::Duration;

use advisory_locking::AsyncPooledAdvisoryLocking;
use advisory_locking::backends::sqlx::PooledPgConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

use super::asynchronous::{Source, run_clients, source};
use super::{CLIENTS, Shared, url};
use crate::history::Mode;
use crate::work::{Body, CallKind, Failure, PlannedCall, Reading, key};

pub(super) fn run(shared: &Shared) {
    let options = PgPoolOptions::new()
        .max_connections(CLIENTS)
        .acquire_timeout(Duration::from_secs(2));
    // In the runtime, because a pool starts a task of its own.
    run_clients(shared, CLIENTS, async {
        options.connect_lazy(&url()).unwrap()
    });
}

source!(PgPool, PooledPgConnection);

async fn body(conn: &mut PgConnection, plan: PlannedCall, shared: &Shared) -> Result<(), Failure> {
    let mut body = Body::begin(plan, &shared.recorder, &shared.storage);
    body.read(&read(conn, plan).await?);
    tokio::time::sleep(plan.pause).await;
    match plan.mode {
        Mode::Exclusive => {
            let number = body.writes();
            let update = AssertSqlSafe(plan.update_sql(number));
            if plan.call % 2 == 0 {
                let mut tx = conn.begin().await?;
                tx.execute(update).await?;
                tx.commit().await?;
            } else {
                conn.execute(update).await?;
            }
            body.wrote(number);
        }
        Mode::Shared => body.read_again(&read(conn, plan).await?),
    }
    Ok(())
}

async fn read(conn: &mut PgConnection, plan: PlannedCall) -> sqlx::Result<Reading> {
    let row = sqlx::query_as(AssertSqlSafe(plan.select_sql())).fetch_one(conn);
    let (pid, number) = row.await?;
    Ok(Reading::new(pid, number))
}
