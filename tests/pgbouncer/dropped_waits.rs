//! Waits on the server that are dropped with their connection, directly and through a pooler.
//!
//! PgBouncer knows the cancel key of a client only as long as the client is connected. So the
//! server must notice by itself that a waiter has gone.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use advisory_locking::{
    AdvisoryLocking, AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockKey, LockOptions,
    WaitStrategy,
};
use diesel::pg::PgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use sea_orm::{ConnectOptions, Database};
use testkit::observer::{LockEntry, Observe};
use testkit::server::{connect, dropped_waits, fresh_key, url};

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::pooler::{Mode, Pooler};

#[derive(Clone, Copy)]
enum Scope {
    Session,
    Transaction,
}

/// Opens a connection or a pool, and waits for a key. It ends with an error, or never.
macro_rules! client {
    ($name:ident, $body_arg:ty, |$url:ident| $open:expr) => {
        async fn $name($url: String, key: LockKey, scope: Scope) -> String {
            let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
            #[allow(unused_mut, reason = "a pool is used by shared reference")]
            let mut opened = match $open {
                Ok(opened) => opened,
                Err(error) => return error.to_string(),
            };
            let ended = match scope {
                Scope::Session => opened
                    .acquire_advisory_lock(key, options)
                    .await
                    .map(drop)
                    .map_err(|error| format!("{error:?}")),
                Scope::Transaction => opened
                    .with_advisory_xact_lock(key, options, async |_: &mut $body_arg| {
                        Ok::<_, advisory_locking::LockError>(())
                    })
                    .await
                    .map_err(|error| format!("{error:?}")),
            };
            format!("{ended:?}")
        }
    };
}

client!(wait_on_connection, AsyncPgConnection, |url| {
    AsyncPgConnection::establish(&url).await
});
client!(wait_in_bb8, AsyncPgConnection, |url| {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
    // PgBouncer 1.18 may have exited, which the pool finds out after its timeout.
    let pool = bb8::Pool::builder().connection_timeout(Duration::from_secs(5));
    pool.max_size(1).build(manager).await
});
client!(wait_on_client, Client, |url| { connect_client(&url).await });
client!(wait_in_deadpool, deadpool_postgres::ClientWrapper, |url| {
    let config = url.parse().expect("an address");
    let manager = deadpool_postgres::Manager::new(config, NoTls);
    deadpool_postgres::Pool::builder(manager)
        .max_size(1)
        .build()
});
client!(
    wait_in_sea_orm,
    advisory_locking::backends::sea_orm::PinnedConnection,
    |url| {
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false);
        Database::connect(options).await
    }
);

client!(
    wait_in_sqlx,
    advisory_locking::backends::sqlx::PooledPgConnection,
    |url| {
        let options = sqlx::postgres::PgPoolOptions::new();
        options.max_connections(1).connect(&url).await
    }
);
/// A client whose drop closes its connection. That of a `Client` alone leaves it open until the
/// reply, and PgBouncer 1.18 drops cancel requests that tokio-postgres closes at once.
struct ClosingClient {
    client: Client,
    _connection: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Deref for ClosingClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for ClosingClient {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

async fn connect_client(url: &str) -> Result<ClosingClient, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let mut task = JoinSet::new();
    task.spawn(connection);
    Ok(ClosingClient {
        client,
        _connection: task,
    })
}

/// A way to the server.
struct Route {
    pooler: Option<(Mode, Pooler)>,
}

impl Route {
    fn through(mode: Mode) -> Self {
        let pooler = Some((mode, Pooler::start(mode, 2, "")));
        Self { pooler }
    }

    fn url(&self) -> String {
        let pooler = self.pooler.as_ref();
        pooler.map_or_else(url, |(_, pooler)| pooler.url())
    }

    /// Starts the pooler again: PgBouncer 1.18 may exit at a cancel request.
    fn restart(&mut self) {
        if let Some((mode, pooler)) = &mut self.pooler {
            *pooler = Pooler::start(*mode, 2, "");
        }
    }
}

/// Drops waits with their connections, and returns the longest time in the queue after the drop.
async fn drop_waits<F: Future<Output = String> + Send>(
    mut route: Route,
    scope: Scope,
    client: impl Fn(String, LockKey, Scope) -> F + Send + Sync,
) -> Duration {
    let (mut holder, mut observer, key) = (connect(), connect(), fresh_key());
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let guard = guard.unwrap();
    let mut longest = Duration::ZERO;
    for round in 0..dropped_waits() {
        let mut errors = Vec::new();
        // In transaction mode, an old pooler may also mix up the prepared statements of a client.
        loop {
            let client = || client(route.url(), key.clone(), scope);
            let ended = wait_and_drop(&mut observer, &key, client).await;
            let Err(error) = ended else { break };
            errors.push(error);
            assert!(errors.len() < 20, "no client waits: {errors:?}");
            route.restart();
        }
        let dropped = Instant::now();
        let alone = |entries: &[LockEntry]| entries.len() == 1;
        let event = format!("round {round}: the waiter is still queued");
        observer.wait_for(&key, alone, &event).await;
        longest = longest.max(dropped.elapsed());
    }
    guard.release().unwrap();
    observer.assert_free(&key, "the waits").await;
    longest
}

/// Waits until a client is queued, and drops it there. Returns the error of a client that ends.
async fn wait_and_drop<F: Future<Output = String> + Send>(
    observer: &mut PgConnection,
    key: &LockKey,
    client: impl FnOnce() -> F + Send,
) -> Result<(), String> {
    let queued = |entries: &[LockEntry]| entries.len() == 2;
    tokio::select! {
        error = client() => Err(error),
        () = observer.wait_for(key, queued, "a waiter") => Ok(()),
    }
}

macro_rules! on_clients {
    ($($name:ident => $client:ident;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn dropped_waits_leave_the_queue() {
                let direct = Route { pooler: None };
                for (way, route, scope) in [
                    ("directly", direct, Scope::Session),
                    ("session mode", Route::through(Mode::Session), Scope::Session),
                    ("transaction mode", Route::through(Mode::Transaction), Scope::Transaction),
                ] {
                    let longest = drop_waits(route, scope, $client).await;
                    println!("{}, {way}: at most {longest:?}", stringify!($name));
                }
            }
        }
    )*};
}
on_clients! {
    borrowed => wait_on_connection;
    bb8_pool => wait_in_bb8;
    sea_orm_pool => wait_in_sea_orm;
    sqlx_pool => wait_in_sqlx;
    client => wait_on_client;
    client_in_deadpool => wait_in_deadpool;
}
