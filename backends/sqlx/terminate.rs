//! Termination of a session that may be waiting for a lock.
//!
//! While a server process waits for a lock, it does not notice that its client has disconnected. So
//! a wait stays in the wait queue when its connection is closed. sqlx 0.9.0 sends no cancel
//! requests. Therefore the session is terminated by its process id, over another connection. A
//! session that does not wait ends with its own connection.
//!
//! The server also checks for a disconnected client by itself: the wait sets
//! [`client_connection_check_interval`][interval]. That takes up to half a second, and needs
//! PostgreSQL 14 or later.
//!
//! [interval]: https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-CLIENT-CONNECTION-CHECK-INTERVAL

use std::pin::pin;
use std::time::Duration;

use ::sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use futures_timer::Delay;
use futures_util::future::{self, Either};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::error::code;
use crate::backends::background;
use crate::backends::postgres::terminate_if_waiting;
use crate::key::RawLockKey;

/// Soft limit of concurrent terminations, each of which opens a connection.
///
/// Without it, a thousand waits that are dropped together would open a thousand connections. After
/// [`PERMIT_TIMEOUT`] a termination goes on without a permit.
static CONCURRENCY: Semaphore = Semaphore::const_new(2);

const PERMIT_TIMEOUT: Duration = Duration::from_millis(500);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ATTEMPTS: u32 = 5;
const INITIAL_BACKOFF: Duration = Duration::from_millis(20);

/// Terminates a session that waits for this key, in the background.
pub(crate) fn spawn(pool: PgPool, pid: i32, awaited: RawLockKey, runtime: Option<Handle>) {
    background::run(
        move || terminate_waiting(pool.clone(), pid, awaited),
        runtime,
    );
}

async fn terminate_waiting(pool: PgPool, pid: i32, awaited: RawLockKey) {
    let query = terminate_if_waiting(pid, awaited);
    let mut backoff = INITIAL_BACKOFF;
    for attempt in 1..=MAX_ATTEMPTS {
        if find_session(&pool, &query).await == Found::Yes || attempt == MAX_ATTEMPTS {
            return;
        }
        // The statement that waits may not have reached the server yet.
        Delay::new(backoff).await;
        backoff *= 4;
    }
}

/// Result of a query about a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    Yes,
    /// It found no row, or failed.
    No,
    /// The server lives and has [no room] for another session.
    ///
    /// [no room]: https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-MAX-CONNECTIONS
    Unknown,
}

/// Runs a query about a session over a new connection.
pub(crate) async fn find_session(pool: &PgPool, query: &str) -> Found {
    // After the timeout it goes on without a permit: the other terminations may be stuck on a
    // server that no longer answers.
    let _permit = until(Delay::new(PERMIT_TIMEOUT), CONCURRENCY.acquire()).await;
    let row = until(Delay::new(ATTEMPT_TIMEOUT), async {
        // Not from the pool, whose connections may all be in use by other waiters.
        let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
        let row = ::sqlx::raw_sql(AssertSqlSafe(query))
            .fetch_optional(&mut connection)
            .await;
        let _ = connection.close().await;
        row
    });
    match row.await {
        Some(Ok(Some(_))) => Found::Yes,
        Some(Err(error)) if code(&error).is_some_and(|code| code.as_str() == "53300") => {
            Found::Unknown
        }
        Some(Ok(None) | Err(_)) | None => Found::No,
    }
}

/// Awaits a future. Returns `None` if the event comes first.
pub(crate) async fn until<F: Future>(
    event: impl Future<Output = ()>,
    future: F,
) -> Option<F::Output> {
    match future::select(pin!(future), pin!(event)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
