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

const TRIES: u32 = 4;
const LONGEST_TRY: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);

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
        let socket = if self.connection.is_some() {
            Socket::Open
        } else {
            Socket::Closed
        };
        if let Some(pid) = self.pid {
            terminate(&self.pool, pid, socket).await;
        }
        if let Some(connection) = self.connection.take() {
            // What it says of a session that was terminated is known.
            let _ = within(LONGEST_TRY, connection.close()).await;
        }
    }

    fn orphaned(&mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection, self.runtime.as_ref());
        }
    }
}

/// Closes a connection without waiting for that.
pub(super) fn close(mut connection: PoolConnection<Postgres>, runtime: Option<&Handle>) {
    let _entered = runtime.map(Handle::enter);
    connection.close_on_drop();
    // Before the runtime is left again.
    drop(connection);
}

/// Whether the session's connection is still open, and so its process id its own.
#[derive(Clone, Copy, Debug)]
enum Socket {
    Open,
    Closed,
}

/// Terminates a session.
async fn terminate(pool: &PgPool, pid: i32, socket: Socket) {
    let Ok(_permit) = AT_ONCE.acquire().await else {
        return;
    };
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        if within(LONGEST_TRY, ask_to_terminate(pool, pid, socket)).await == Some(true) {
            return;
        }
        futures_timer::Delay::new(pause).await;
        pause *= 4;
    }
}

/// Asks over an idle connection of the pool, or over one made for it. Whether the session was found.
async fn ask_to_terminate(pool: &PgPool, pid: i32, socket: Socket) -> bool {
    let sql = match socket {
        Socket::Open => "SELECT pg_catalog.pg_terminate_backend($1)",
        // If it has ended by itself, another session may have its process id by now; so only one that waits as ours did.
        Socket::Closed => {
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE pid OPERATOR(pg_catalog.=) $1 AND wait_event_type OPERATOR(pg_catalog.=) 'Lock' \
             AND wait_event OPERATOR(pg_catalog.=) 'advisory'"
        }
    };
    let idle = match socket {
        Socket::Open => pool.try_acquire(),
        // Idle connections belong to a runtime that is going.
        Socket::Closed => None,
    };
    if let Some(mut idle) = idle
        && let Ok(found) = ask(&mut idle, sql, pid).await
    {
        return found;
    }
    let Ok(mut own) = PgConnection::connect_with(&pool.connect_options()).await else {
        return false;
    };
    let found = ask(&mut own, sql, pid).await;
    let _ = own.close().await;
    found.unwrap_or(false)
}

async fn ask(connection: &mut PgConnection, sql: &'static str, pid: i32) -> sqlx::Result<bool> {
    let row = sqlx::query(sql)
        .bind(pid)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    match future::select(pin!(future), futures_timer::Delay::new(limit)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
