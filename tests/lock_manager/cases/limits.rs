//! Many keys, and exhausted resources: the lock table of the server, connections of the pool.

#![allow(
    clippy::future_not_send,
    reason = "the guard of the private server stays on one thread"
)]

use std::time::Duration;

use advisory_locking::LockErrorKind::{Pool, TooManyLocks};
use advisory_locking::LockKey;
use advisory_locking::lock_manager::LockManagerOptions;
use diesel::connection::SimpleConnection;
use futures_util::future::join_all;
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::server::connect_to;

use super::{fresh_key, kind_of, no_wait, without_keep_alive};
use crate::pool_under_test::PoolUnderTest;

fn keys(count: usize) -> Vec<LockKey> {
    (0..count).map(|_| fresh_key()).collect()
}

pub(crate) async fn ten_thousand_keys_fit_on_one_session(pool_under_test: PoolUnderTest) {
    let server = ClusterGuard::acquire();
    let pool_under_test = pool_under_test.on_server(server.url());
    let manager = pool_under_test.pool(1).await.manager(without_keep_alive());
    let (keys, mut observer) = (keys(10_000), connect_to(&pool_under_test.url));
    let guards = manager.acquire_all(keys.clone(), no_wait()).await.unwrap();
    let holder = observer.holder(&keys[0]);
    assert_eq!(observer.lock_count(&[holder]), 10_000);
    guards.release().await.unwrap();
    assert_eq!(observer.lock_count(&[holder]), 0);
    manager.close().await;
}

/// Requests are granted until the table is full, further ones fail, and held locks stay held.
pub(crate) async fn full_lock_table_rejects_further_keys(pool_under_test: PoolUnderTest) {
    let server = ClusterGuard::acquire();
    let pool_under_test = pool_under_test.on_server(server.url());
    let manager = pool_under_test.pool(1).await.manager(without_keep_alive());
    let (kept, keys, mut observer) = (fresh_key(), keys(100), connect_to(&pool_under_test.url));
    let kept = manager.acquire(&kept, no_wait()).await.unwrap();
    let holder = observer.holder(kept.key());
    let mut filler = server.connect();
    let fill = "SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) n";
    filler.batch_execute(fill).unwrap_err();
    filler.run("SELECT pg_advisory_unlock(n) FROM generate_series(1, 20) n");

    let asked = join_all(keys.iter().map(|key| manager.acquire(key, no_wait()))).await;
    let (granted, refused): (Vec<_>, Vec<_>) = asked.into_iter().partition(Result::is_ok);
    assert!(
        !granted.is_empty() && !refused.is_empty(),
        "{} of 100 fit",
        granted.len()
    );
    for refused in refused {
        assert_eq!(kind_of(refused), Some(TooManyLocks));
    }
    drop(filler);
    let held = i64::try_from(granted.len()).unwrap() + 1;
    assert_eq!(observer.lock_count(&[holder]), held);
    for granted in granted {
        granted.unwrap().release().await.unwrap();
    }
    assert_eq!(observer.holders(kept.key()), [holder]);
    kept.release().await.unwrap();
    assert_eq!(observer.lock_count(&[holder]), 0);
}

pub(crate) async fn exhausted_pool_is_reported(pool_under_test: PoolUnderTest) {
    // Long enough to connect on a loaded machine.
    let checkout = Duration::from_secs(2);
    let pool = PoolUnderTest {
        checkout,
        ..pool_under_test.clone()
    }
    .pool(1)
    .await;
    let manager = pool.manager(LockManagerOptions::new());
    let key = fresh_key();
    let meanwhile = async || {
        for options in [no_wait(), super::poll()] {
            assert_eq!(kind_of(manager.acquire(&key, options).await), Some(Pool));
        }
    };
    pool.with_plain_lock(&fresh_key(), no_wait(), meanwhile)
        .await
        .unwrap();
    manager
        .acquire(&key, no_wait())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}
