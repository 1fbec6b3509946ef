//! Many keys, and exhausted resources: the lock table of the server, connections of the pool.

#![allow(
    clippy::future_not_send,
    reason = "the guard of the private server stays on one thread"
)]

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use advisory_locking::LockErrorKind::{Pool, TooManyLocks};
use advisory_locking::WaitStrategy::Block;
use advisory_locking::lock_manager::LockManagerOptions;
use advisory_locking::{LockKey, LockOptions};
use diesel::connection::SimpleConnection;
use futures_util::future::join_all;
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::proxy::Proxy;
use testkit::server::connect_to;

use super::{TIMEOUT, fresh_key, kind_of, no_wait, without_keep_alive};
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

/// A call for more keys than fit gives all its locks back at once, and asks for none again.
pub(crate) async fn full_lock_table_ends_a_call_for_many_keys(pool_under_test: PoolUnderTest) {
    let server = ClusterGuard::acquire();
    // The proxy ends with its connection, and a failing test must not wait for that.
    let proxy = ManuallyDrop::new(Proxy::to(&server.url()));
    let pool = pool_under_test.on_server(proxy.url()).pool(1).await;
    let manager = pool.manager(without_keep_alive());
    let (kept, mut observer) = (fresh_key(), connect_to(&server.url()));
    let kept = manager.acquire(&kept, no_wait()).await.unwrap();
    let holder = observer.holder(kept.key());
    let mut filler = server.connect();
    let fill = "SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) n";
    filler.batch_execute(fill).unwrap_err();
    filler.run("SELECT pg_advisory_unlock(n) FROM generate_series(1, 2500) n");

    let before = proxy.round_trips();
    let refused = manager.acquire_all(keys(6_000), no_wait()).await;
    assert_eq!(kind_of(refused), Some(TooManyLocks));
    // Some 2,500 keys fit. Diesel hides the SQLSTATE, so one batch is repeated key by key.
    let taken = proxy.round_trips() - before;
    assert!(taken < 1_200, "{taken} round trips");
    drop(filler);
    assert_eq!(observer.lock_count(&[holder]), 1);

    let before = proxy.round_trips();
    let refused = manager.acquire_all(keys(10_001), super::poll()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), TooManyLocks);
    assert!(refused.to_string().contains("10000"), "{refused}");
    assert_eq!(proxy.round_trips(), before);
    kept.release().await.unwrap();
    manager.close().await;
    drop((manager, pool));
    drop(ManuallyDrop::into_inner(proxy));
}

/// The pool would wait for a connection much longer.
pub(crate) async fn limit_covers_the_checkout(pool_under_test: PoolUnderTest) {
    let pool = pool_under_test.pool(1).await;
    let manager = pool.manager(LockManagerOptions::new());
    let limit = LockOptions::wait_up_to(Duration::from_millis(50));
    let meanwhile = async || {
        let began = Instant::now();
        for options in [limit, limit.strategy(Block)] {
            let key = fresh_key();
            let error = manager.acquire(&key, options).await.unwrap_err();
            assert_eq!((error.kind(), error.key()), (Pool, Some(&key)));
            // An outage is not contention.
            let result = manager.try_acquire(&key, options).await;
            assert_eq!(kind_of(result), Some(Pool));
            let result = manager.acquire_all(vec![key.clone()], options).await;
            assert_eq!(kind_of(result), Some(Pool));
            let result = manager.try_acquire_all(vec![key], options).await;
            assert_eq!(kind_of(result), Some(Pool));
        }
        assert!(began.elapsed() < pool_under_test.checkout);
        // `close` does not wait for the connection either.
        tokio::time::timeout(TIMEOUT / 2, manager.close())
            .await
            .unwrap();
    };
    pool.with_plain_lock(&fresh_key(), no_wait(), meanwhile)
        .await
        .unwrap();
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
