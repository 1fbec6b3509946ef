//! An instrumentation of diesel-async that panics, also while a panic unwinds.

use std::panic::AssertUnwindSafe;

use advisory_locking::{AsyncAdvisoryLocking, LockError, LockKey, LockOptions, WaitStrategy};
use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key, url};

use crate::adapters::connect_async;

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// Panics at every event after the first `silent` ones.
fn panics_after(mut silent: u32) -> impl Instrumentation {
    move |_: InstrumentationEvent<'_>| {
        silent = silent.checked_sub(1).expect("the instrumentation panics");
    }
}

type Call =
    for<'c> fn(&'c mut AsyncPgConnection, &'c LockKey) -> BoxFuture<'c, Result<(), LockError>>;

const CALLS: [Call; 5] = [
    |conn, key| {
        Box::pin(async move {
            let guard = conn.acquire_advisory_lock(key, NO_WAIT).await?;
            guard.release().await
        })
    },
    |conn, key| {
        conn.acquire_advisory_lock(key, NO_WAIT)
            .map(|guard| guard.map(drop))
            .boxed()
    },
    |conn, key| {
        conn.with_advisory_lock(key, NO_WAIT, async |_| Ok(()))
            .boxed()
    },
    |conn, key| {
        conn.with_advisory_xact_lock(key, NO_WAIT, async |_| Ok(()))
            .boxed()
    },
    |conn, key| {
        let body = async |_: &mut AsyncPgConnection| panic!("the body panics");
        conn.with_advisory_lock(key, NO_WAIT, body).boxed()
    },
];

#[tokio::test]
async fn panic_at_any_event_leaves_no_lock() {
    let mut observer = connect();
    for (number, call) in CALLS.into_iter().enumerate() {
        for silent in 0.. {
            let (mut conn, key) = (connect_async(&url()).await, fresh_key());
            conn.set_instrumentation(panics_after(silent));
            let called = AssertUnwindSafe(call(&mut conn, &key)).catch_unwind().await;
            let after = format!("call {number}, event {silent}");
            observer.assert_free(&key, &after).await;
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

/// The drop of a future must not panic.
#[tokio::test]
async fn wait_dropped_under_such_a_panic_leaves_the_queue() {
    let (mut observer, mut holder, key) = (connect(), connect_async(&url()).await, fresh_key());
    let guard = holder.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let mut conn = connect_async(&url()).await;
    // The attempt and the wait begin with an event, and the attempt ends with one.
    let mut statements = 0;
    conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { .. } = event {
            statements += 1;
            assert!(statements <= 2, "the instrumentation panics");
        }
    });
    let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    tokio::select! {
        _ = conn.acquire_advisory_lock(&key, options) => panic!("granted though it is held"),
        () = observer.wait_for(&key, |entries| entries.len() == 2, "it queues") => {}
    }
    observer
        .wait_for(&key, |entries| entries.len() == 1, "it leaves the queue")
        .await;
    guard.release().await.unwrap();
}
