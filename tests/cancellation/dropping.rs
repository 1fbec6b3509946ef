//! Every call, dropped at each of its pending points in turn, until it completes.
//!
//! The number of points is not asserted, because a reply may arrive before the poll. `blocking.rs`
//! shows with a stalled server that there are some.

use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, LockOptions, WaitStrategy};
use testkit::counts::{assert_none_left, count, counts_of};
use testkit::observer::{LockEntry, Observe};
use testkit::pending::drop_at;
use testkit::server::{connect, connect_to, fresh_key, url};

use crate::adapters::{Adapter, Borrowed, CALLS, Pooled, connect_async};
use crate::pools::{Bb8, Deadpool, Mobc};

/// The key is free: every call completes, and may be dropped before it does. `url` may be the
/// address of the server with other parameters.
pub(crate) async fn drop_everywhere<A: Adapter>(server: &str, url: &str) {
    count();
    let mut observer = connect_to(server);
    for call in CALLS {
        let mut adapter = A::open(url).await;
        let mut limit = 0;
        loop {
            let key = fresh_key();
            let done = drop_at(limit, adapter.call(call, &key, LockOptions::no_wait())).await;
            adapter.flush(call).await;
            let what = format!("{}: {call:?} dropped at pending point {limit}", A::NAME);
            observer.assert_free(&key, &what).await;
            adapter.check().await;
            assert_none_left(&key, &what);
            if let Some(result) = done {
                result.expect(&what);
                assert_eq!(counts_of(&key).requests, 1, "{what}");
                break;
            }
            limit += 1;
            assert!(limit < 200, "{what}: it does not end");
        }
    }
}

/// Another session holds the key. The call is dropped before it waits, and then while it waits.
async fn drop_while_waiting<A: Adapter>(strategy: WaitStrategy) {
    /// Number of drops of each call while it waits.
    const WAITS: u32 = 4;

    count();
    let mut observer = connect();
    let mut holder = connect_async(&url()).await;
    for call in CALLS {
        let key = fresh_key();
        let guard = holder
            .acquire_advisory_lock(&key, LockOptions::no_wait())
            .await
            .unwrap();
        let mut adapter = A::open(&url()).await;
        let mut waits = 0;
        for limit in 0.. {
            // Without a limit, because a leaked wait would end at its limit.
            let options = LockOptions::wait_forever().strategy(strategy);
            let options = match strategy {
                WaitStrategy::Poll => options.interval(Duration::from_millis(4)),
                _ => options,
            };
            let what = format!(
                "{}: {call:?} dropped at pending point {limit} of a wait",
                A::NAME
            );
            assert!(limit < 200, "{what}: it did not wait");
            let before = counts_of(&key).waits;
            let dropped = drop_at(limit, adapter.call(call, &key, options));
            let (ended, has_waited) = match strategy {
                // A call that polls has any number of pending points.
                WaitStrategy::Poll => {
                    let ended = dropped.await;
                    (ended, counts_of(&key).waits > before)
                }
                _ => {
                    let queued = |entries: &[LockEntry]| entries.len() == 2;
                    tokio::select! {
                        ended = dropped => (ended, false),
                        () = observer.wait_for(&key, queued, &what) => (None, true),
                    }
                }
            };
            assert!(ended.is_none(), "{what}: it did not wait");
            adapter.flush(call).await;
            observer
                .wait_for(
                    &key,
                    |entries| entries.len() == 1 && entries[0].granted,
                    &format!("{what}: still queued"),
                )
                .await;
            adapter.check().await;
            // The number of pending points before the wait varies.
            waits += u32::from(has_waited);
            if waits == WAITS {
                break;
            }
        }
        guard.release().await.unwrap();
        observer.assert_free(&key, A::NAME).await;
        assert_none_left(&key, A::NAME);
        adapter.check().await;
    }
}

macro_rules! for_each_adapter {
    ($($name:ident => $adapter:ty;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn dropped_at_every_pending_point() {
                drop_everywhere::<$adapter>(&url(), &url()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn dropped_while_it_polls() {
                drop_while_waiting::<$adapter>(WaitStrategy::Poll).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn dropped_while_the_server_waits() {
                drop_while_waiting::<$adapter>(WaitStrategy::Block).await;
            }
        }
    )*};
}
for_each_adapter! {
    borrowed => Borrowed;
    bb8_pool => Pooled<Bb8>;
    deadpool_pool => Pooled<Deadpool>;
    mobc_pool => Pooled<Mobc>;
    sea_orm_pool => crate::sea_orm::SeaOrm;
    sqlx_connection => crate::sqlx::Borrowed;
    sqlx_pool => crate::sqlx::Pooled;
    client => crate::tokio_postgres::Borrowed;
    client_in_bb8 => crate::tokio_postgres::Bb8;
    client_in_deadpool => crate::tokio_postgres::Deadpool;
}
