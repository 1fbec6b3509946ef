//! Ending a session that may be waiting for a lock.
//!
//! A server that waits for a lock does not look at its client: closing the connection would leave the wait in the queue. sqlx can
//! cancel nothing, so the session is terminated from another connection, by its process id.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{self, Either};
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, Connection, PgConnection, PgPool, Postgres};
use tokio::sync::Semaphore;

use crate::backends::RuntimeBound;
use crate::backends::background::{self, Job};

/// How many sessions are terminated at a time: a thousand waits that time out together must not open a thousand connections.
static CONCURRENCY: Semaphore = Semaphore::const_new(2);

/// How long to wait for a turn.
const PERMIT_TIMEOUT: Duration = Duration::from_millis(500);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ATTEMPTS: u32 = 5;
const INITIAL_BACKOFF: Duration = Duration::from_millis(20);

/// Ends a session in the background.
pub(super) fn spawn(
    connection: RuntimeBound<PoolConnection<Postgres>>,
    pool: PgPool,
    pid: Option<i32>,
) {
    let runtime = connection.runtime().cloned();
    let job = TerminateJob {
        connection: Some(connection),
        pool,
        pid,
    };
    background::run(job, runtime);
}

/// A session to be ended, and its connection until that is closed.
struct TerminateJob {
    connection: Option<RuntimeBound<PoolConnection<Postgres>>>,
    pool: PgPool,
    pid: Option<i32>,
}

impl Job for TerminateJob {
    async fn run(&mut self) {
        let mut pause = INITIAL_BACKOFF;
        for _ in 0..MAX_ATTEMPTS {
            let found = match self.pid {
                Some(pid) => terminate_waiting_session(&self.pool, pid).await,
                None => true,
            };
            // A session that does not wait ends with its connection; a wait may still be on its way to the server.
            if let Some(connection) = self.connection.take() {
                let _ = with_timeout(ATTEMPT_TIMEOUT, connection.into_inner().close()).await;
            }
            if found {
                return;
            }
            futures_timer::Delay::new(pause).await;
            pause *= 4;
        }
    }

    fn on_no_runtime(&mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection);
        }
    }
}

/// Closes a connection without waiting for that.
pub(super) fn close(connection: RuntimeBound<PoolConnection<Postgres>>) {
    // Its socket closes here, while a graceful end would need somebody to drive the runtime.
    connection.drop_with(|connection| drop(connection.detach()));
}

/// Terminates a session that waits for an advisory lock. Whether it was found.
///
/// Only such a one: if ours has ended by itself, another session may have its process id by now, here or on the server that has taken
/// this one's place.
async fn terminate_waiting_session(pool: &PgPool, pid: i32) -> bool {
    // Whoever gets none in time goes without: the server of somebody else's may be gone.
    let _permit = with_timeout(PERMIT_TIMEOUT, CONCURRENCY.acquire()).await;
    let asked = with_timeout(ATTEMPT_TIMEOUT, async {
        let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
        let row = sqlx::query(TERMINATE)
            .bind(pid)
            .fetch_optional(&mut connection)
            .await;
        let _ = connection.close().await;
        row
    });
    matches!(asked.await, Some(Ok(Some(_))))
}

const TERMINATE: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
    WHERE pid OPERATOR(pg_catalog.=) $1 AND wait_event_type OPERATOR(pg_catalog.=) 'Lock' \
    AND wait_event OPERATOR(pg_catalog.=) 'advisory'";

async fn with_timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    match future::select(pin!(future), futures_timer::Delay::new(limit)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
