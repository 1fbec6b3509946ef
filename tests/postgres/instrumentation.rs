//! An instrumentation of Diesel that panics: the session ends, and with it the lock.

use std::panic::{AssertUnwindSafe, catch_unwind};

use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions, PooledAdvisoryLocking};
use diesel::Connection;
use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key, pool_of};

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// Panics at every event after the first `silent` ones.
fn panics_after(mut silent: u32) -> impl Instrumentation {
    move |_: InstrumentationEvent<'_>| {
        silent = silent.checked_sub(1).expect("the instrumentation panics");
    }
}

type Call = fn(&mut PgConnection, &LockKey) -> Result<(), LockError>;

const CALLS: [Call; 4] = [
    |conn, key| conn.acquire_advisory_lock(key, NO_WAIT)?.release(),
    |conn, key| conn.with_advisory_lock(key, NO_WAIT, |_| Ok(())),
    |conn, key| conn.with_advisory_xact_lock(key, NO_WAIT, |_| Ok(())),
    |conn, key| conn.with_advisory_lock(key, NO_WAIT, |_| panic!("the body panics")),
];

#[test]
fn panic_at_any_event_leaves_no_lock() {
    let mut observer = connect();
    for (number, call) in CALLS.into_iter().enumerate() {
        for silent in 0.. {
            let (mut conn, key) = (connect(), fresh_key());
            conn.set_instrumentation(panics_after(silent));
            let called = catch_unwind(AssertUnwindSafe(|| call(&mut conn, &key)));
            let after = format!("call {number}, event {silent}");
            observer.assert_soon_free(&key, &after);
            if let Ok(ended) = called {
                ended.unwrap();
                break;
            }
            // The last call always panics, at the latest in its body.
            if silent > 20 {
                assert_eq!(number, CALLS.len() - 1, "{after}");
                break;
            }
        }
    }
}

#[test]
fn panic_of_the_instrumentation_keeps_the_pool_usable() {
    let key = fresh_key();
    for silent in 0.. {
        let pool = pool_of(1);
        let called = catch_unwind(AssertUnwindSafe(|| {
            pool.with_advisory_lock(&key, NO_WAIT, |conn| {
                conn.set_instrumentation(panics_after(silent));
                Ok::<_, LockError>(())
            })
        }));
        connect().assert_soon_free(&key, &format!("event {silent}"));
        if let Ok(ended) = called {
            ended.unwrap();
            break;
        }
        let again = pool.with_advisory_lock(&key, NO_WAIT, |_| Ok::<_, LockError>(()));
        again.unwrap();
    }
}
