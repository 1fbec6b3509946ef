//! Cases of pools only: no free connection, old connections, and two sessions for one key.

use std::time::{Duration, Instant};

use advisory_locking::{AsyncPooledAdvisoryLocking, LockErrorKind, PooledAdvisoryLocking};
use diesel::pg::PgConnection;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{self, AsyncDieselConnectionManager};
use testkit::server::{connect_to, fresh_key, url, with_parameters};
use testkit::temp::TempRole;

use crate::actor_async::on_runtime;
use crate::cases::{block, no_wait, poll};

type R2d2 = diesel::r2d2::Pool<diesel::r2d2::ConnectionManager<PgConnection>>;
type Bb8 = pooled_connection::bb8::Pool<AsyncPgConnection>;
type Deadpool = pooled_connection::deadpool::Pool<AsyncPgConnection>;

/// Checkout timeout of a pool that has no free connection. A slow machine may need longer to open
/// one.
const SHORT_CHECKOUT: Duration = Duration::from_millis(300);
/// Checkout timeout of the other pools.
const CHECKOUT: Duration = Duration::from_secs(20);
/// Maximum age of a connection, for pools that have such a limit.
const LIFETIME: Duration = Duration::from_millis(20);

fn r2d2(url: &str, size: u32, timeout: Duration) -> R2d2 {
    R2d2::builder()
        .max_size(size)
        .min_idle(Some(0))
        .connection_timeout(timeout)
        .max_lifetime(Some(LIFETIME))
        .build(diesel::r2d2::ConnectionManager::new(url))
        .unwrap()
}

async fn bb8(url: &str, size: u32, timeout: Duration) -> Bb8 {
    Bb8::builder()
        .max_size(size)
        .connection_timeout(timeout)
        .max_lifetime(Some(LIFETIME))
        .reaper_rate(LIFETIME)
        .build(AsyncDieselConnectionManager::new(url))
        .await
        .unwrap()
}

async fn deadpool(url: &str, size: u32, timeout: Duration) -> Deadpool {
    Deadpool::builder(AsyncDieselConnectionManager::new(url))
        .max_size(size as usize)
        .wait_timeout(Some(timeout))
        .runtime(::deadpool::Runtime::Tokio1)
        .build()
        .unwrap()
}

/// Acquires the lock, again until the pool has a connection.
macro_rules! acquire_eventually {
    ($pool:expr, $key:expr) => {
        acquire_eventually!(@call PooledAdvisoryLocking::acquire_advisory_lock(&$pool, $key, no_wait()))
    };
    ($pool:expr, $key:expr, $await:ident) => {
        acquire_eventually!(@call AsyncPooledAdvisoryLocking::acquire_advisory_lock(&$pool, $key, no_wait()).$await)
    };
    (@call $($call:tt)*) => {
        loop {
            match $($call)* {
                Ok(guard) => break guard,
                Err(error) => assert_eq!(error.kind(), LockErrorKind::Pool),
            }
        }
    };
}

/// Makes a test of each case for blocking pools, and for async pools with `await`.
macro_rules! pools {
    ($($name:ident: $trait:ident $(, $await:ident)?;)*) => {$(
        mod $name {
            use super::*;

            /// The guard has the pool's only connection.
            #[test]
            fn none_is_left_to_give() {
                on_runtime(async {
                    let pool = super::$name(&url(), 1, SHORT_CHECKOUT)$(.$await)?;
                    let (key, other) = (fresh_key(), fresh_key());
                    let guard = acquire_eventually!(pool, &key $(, $await)?);
                    // The pool's own timeout is shorter than the last limit.
                    let short = [no_wait(), poll(SHORT_CHECKOUT), block(SHORT_CHECKOUT)];
                    let began = Instant::now();
                    for options in short.into_iter().chain([poll(CHECKOUT)]) {
                        let refused = $trait::acquire_advisory_lock(&pool, &other, options)$(.$await)?;
                        let error = refused.map(drop).unwrap_err();
                        assert_eq!(error.kind(), LockErrorKind::Pool);
                        assert_eq!(error.key(), Some(&other));
                        assert!(std::error::Error::source(&error).is_some());
                    }
                    assert!(began.elapsed() < CHECKOUT);
                    guard.release()$(.$await)?.unwrap();
                    acquire_eventually!(pool, &other $(, $await)?).release()$(.$await)?.unwrap();
                });
            }

            /// Two sessions: the second request times out.
            #[test]
            fn one_key_twice() {
                on_runtime(async {
                    let pool = super::$name(&url(), 2, CHECKOUT)$(.$await)?;
                    let key = fresh_key();
                    let guard = $trait::acquire_advisory_lock(&pool, &key, no_wait())$(.$await)?.unwrap();
                    let limit = Duration::from_millis(20);
                    for options in [poll(limit), block(limit)] {
                        let kind = loop {
                            let refused = $trait::acquire_advisory_lock(&pool, &key, options)$(.$await)?;
                            let kind = refused.map(drop).unwrap_err().kind();
                            // A loaded machine may need longer to open the second connection.
                            if kind != LockErrorKind::Pool {
                                break kind;
                            }
                        };
                        assert_eq!(kind, LockErrorKind::TimedOut);
                    }
                    guard.release()$(.$await)?.unwrap();
                });
            }

            /// A connection that holds a lock is checked out, so its age does not matter.
            #[test]
            fn older_than_a_connection_may_become() {
                on_runtime(async {
                    let pool = super::$name(&url(), 1, CHECKOUT)$(.$await)?;
                    let key = fresh_key();
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

            /// The server rejects further sessions: the pool's error, until it accepts one.
            #[test]
            fn the_server_has_none_to_give() {
                on_runtime(async {
                    let role = TempRole::create_with("CONNECTION LIMIT 1");
                    let url = with_parameters(&url(), &role.login());
                    let only = connect_to(&url);
                    let pool = super::$name(&url, 1, SHORT_CHECKOUT)$(.$await)?;
                    let key = fresh_key();
                    let refused = $trait::acquire_advisory_lock(&pool, &key, no_wait())$(.$await)?;
                    assert_eq!(refused.map(drop).unwrap_err().kind(), LockErrorKind::Pool);
                    drop(only);
                    // The server needs some time to notice the end of the session.
                    acquire_eventually!(pool, &key $(, $await)?).release()$(.$await)?.unwrap();
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
