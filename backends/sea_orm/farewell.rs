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
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::backends::background::{self, Job};

/// How many sessions are terminated at a time: a thousand waits that time out together must not open a thousand connections.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// How long to wait for a turn.
const PATIENCE: Duration = Duration::from_millis(500);
const LONGEST_TRY: Duration = Duration::from_secs(5);
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Ends a session in the background.
pub(super) fn say(
    connection: PoolConnection<Postgres>,
    pool: PgPool,
    pid: Option<i32>,
    runtime: Option<Handle>,
) {
    let farewell = Farewell {
        connection: Some(connection),
        pool,
        pid,
        runtime: runtime.clone(),
    };
    background::run(farewell, runtime);
}

/// A session to be ended, and its connection until that is closed.
struct Farewell {
    connection: Option<PoolConnection<Postgres>>,
    pool: PgPool,
    pid: Option<i32>,
    runtime: Option<Handle>,
}

impl Job for Farewell {
    async fn run(&mut self) {
        let mut pause = FIRST_PAUSE;
        for _ in 0..TRIES {
            let found = match self.pid {
                Some(pid) => ask_to_terminate(&self.pool, pid).await,
                None => true,
            };
            // A session that does not wait ends with its connection; a wait may still be on its way to the server.
            if let Some(connection) = self.connection.take() {
                let _ = within(LONGEST_TRY, connection.close()).await;
            }
            if found {
                return;
            }
            futures_timer::Delay::new(pause).await;
            pause *= 4;
        }
    }

    fn orphaned(&mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection, self.runtime.as_ref());
        }
    }
}

/// Closes a connection without waiting for that.
pub(super) fn close(connection: PoolConnection<Postgres>, runtime: Option<&Handle>) {
    let _entered = runtime.map(Handle::enter);
    // Its socket closes here, while a graceful end would need somebody to drive the runtime.
    drop(connection.detach());
}

/// Terminates a session that waits for an advisory lock. Whether it was found.
///
/// Only such a one: if ours has ended by itself, another session may have its process id by now, here or on the server that has taken
/// this one's place.
async fn ask_to_terminate(pool: &PgPool, pid: i32) -> bool {
    // Whoever gets none in time goes without: the server of somebody else's may be gone.
    let _permit = within(PATIENCE, AT_ONCE.acquire()).await;
    let asked = within(LONGEST_TRY, async {
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

async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    match future::select(pin!(future), futures_timer::Delay::new(limit)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
