//! What only pools have: no connection to give, connections that are replaced with age, and two sessions for one key.

use std::time::{Duration, Instant};

use advisory_locking::{AsyncPooledAdvisoryLocking, LockErrorKind, LockKey, PooledAdvisoryLocking};
use diesel::pg::PgConnection;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{self, AsyncDieselConnectionManager};

use crate::actor_async::on_runtime;
use crate::cases::{block, no_wait, poll};
use crate::harness::postgres::url;
use crate::watch::{Throwaway, Watch, fresh_name, with_parameters};

type R2d2 = diesel::r2d2::Pool<diesel::r2d2::ConnectionManager<PgConnection>>;
type Bb8 = pooled_connection::bb8::Pool<AsyncPgConnection>;
type Deadpool = pooled_connection::deadpool::Pool<AsyncPgConnection>;

/// How long a pool tries to give a connection where it has none to give; on a slow machine too short for one that it makes.
const IMPATIENCE: Duration = Duration::from_millis(300);
/// How long it tries elsewhere.
const PATIENCE: Duration = Duration::from_secs(20);
/// How old a connection may become, where a pool knows such a thing.
const LIFETIME: Duration = Duration::from_millis(20);

fn r2d2(url: &str, size: u32, patience: Duration) -> R2d2 {
    R2d2::builder()
        .max_size(size)
        .min_idle(Some(0))
        .connection_timeout(patience)
        .max_lifetime(Some(LIFETIME))
        .build(diesel::r2d2::ConnectionManager::new(url))
        .unwrap()
}

async fn bb8(url: &str, size: u32, patience: Duration) -> Bb8 {
    Bb8::builder()
        .max_size(size)
        .connection_timeout(patience)
        .max_lifetime(Some(LIFETIME))
        .reaper_rate(LIFETIME)
        .build(AsyncDieselConnectionManager::new(url))
        .await
        .unwrap()
}

async fn deadpool(url: &str, size: u32, patience: Duration) -> Deadpool {
    Deadpool::builder(AsyncDieselConnectionManager::new(url))
        .max_size(size as usize)
        .wait_timeout(Some(patience))
        .runtime(::deadpool::Runtime::Tokio1)
        .build()
        .unwrap()
}

fn key() -> LockKey {
    LockKey::from(fresh_name())
}

/// Asks for the lock until an impatient pool gives a connection.
macro_rules! until_given {
    ($pool:expr, $key:expr) => {
        until_given!(@ask PooledAdvisoryLocking::acquire_advisory_lock(&$pool, $key, no_wait()))
    };
    ($pool:expr, $key:expr, $await:ident) => {
        until_given!(@ask AsyncPooledAdvisoryLocking::acquire_advisory_lock(&$pool, $key, no_wait()).$await)
    };
    (@ask $($ask:tt)*) => {
        loop {
            match $($ask)* {
                Ok(guard) => break guard,
                Err(error) => assert_eq!(error.kind(), LockErrorKind::Pool),
            }
        }
    };
}

/// Writes each case once for blocking and for async pools: `$await` is there or it is not.
macro_rules! pools {
    ($($name:ident: $trait:ident $(, $await:ident)?;)*) => {$(
        mod $name {
            use super::*;

            /// The body's connection is the pool's last.
            #[test]
            fn none_is_left_to_give() {
                on_runtime(async {
                    let pool = super::$name(&url(), 1, IMPATIENCE)$(.$await)?;
                    let (key, other) = (key(), key());
                    let guard = until_given!(pool, &key $(, $await)?);
                    for options in [no_wait(), poll(IMPATIENCE), block(IMPATIENCE)] {
                        let refused = $trait::acquire_advisory_lock(&pool, &other, options)$(.$await)?;
                        let error = refused.map(drop).unwrap_err();
                        assert_eq!(error.kind(), LockErrorKind::Pool);
                        assert_eq!(error.key(), Some(&other));
                        assert!(std::error::Error::source(&error).is_some());
                    }
                    guard.release()$(.$await)?.unwrap();
                    until_given!(pool, &other $(, $await)?).release()$(.$await)?.unwrap();
                });
            }

            /// Two sessions, so the one waits for the other in vain, but not for ever.
            #[test]
            fn one_key_twice() {
                on_runtime(async {
                    let pool = super::$name(&url(), 2, PATIENCE)$(.$await)?;
                    let key = key();
                    let guard = $trait::acquire_advisory_lock(&pool, &key, no_wait())$(.$await)?.unwrap();
                    let limit = Duration::from_millis(20);
                    for options in [poll(limit), block(limit)] {
                        let refused = $trait::acquire_advisory_lock(&pool, &key, options)$(.$await)?;
                        let kind = refused.map(drop).unwrap_err().kind();
                        assert_eq!(kind, LockErrorKind::TimedOut);
                    }
                    guard.release()$(.$await)?.unwrap();
                });
            }

            /// A connection that holds a lock is checked out, and no pool replaces it.
            #[test]
            fn older_than_a_connection_may_become() {
                on_runtime(async {
                    let pool = super::$name(&url(), 1, PATIENCE)$(.$await)?;
                    let key = key();
                    let began = Instant::now();
                    let guard = $trait::acquire_advisory_lock(&pool, &key, no_wait())$(.$await)?.unwrap();
                    while began.elapsed() < LIFETIME * 5 {
                        tokio::time::sleep(LIFETIME).await;
                    }
                    guard.release()$(.$await)?.unwrap();
                    let guard = $trait::acquire_advisory_lock(&pool, &key, no_wait())$(.$await)?.unwrap();
                    guard.release()$(.$await)?.unwrap();
                });
            }

            /// The server gives no more sessions: the pool's error, until it does.
            #[test]
            fn the_server_has_none_to_give() {
                on_runtime(async {
                    let role = Throwaway::create(&url(), "ROLE", "LOGIN PASSWORD 'none' CONNECTION LIMIT 1");
                    let url = with_parameters(&url(), &format!("user={}&password=none", role.name));
                    let only = Watch::at(&url);
                    let pool = super::$name(&url, 1, IMPATIENCE)$(.$await)?;
                    let key = key();
                    let refused = $trait::acquire_advisory_lock(&pool, &key, no_wait())$(.$await)?;
                    assert_eq!(refused.map(drop).unwrap_err().kind(), LockErrorKind::Pool);
                    drop(only);
                    // The server takes its time to see that the session has gone.
                    until_given!(pool, &key $(, $await)?).release()$(.$await)?.unwrap();
                    drop(pool);
                });
            }
        }
    )*};
}
pools! {
    r2d2: PooledAdvisoryLocking;
    bb8: AsyncPooledAdvisoryLocking, await;
    deadpool: AsyncPooledAdvisoryLocking, await;
}
