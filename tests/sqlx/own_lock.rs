//! sqlx's own lock, `PgAdvisoryLock`, and this crate's.

use advisory_locking::{AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockKey, schemes};
use sqlx::Either;
use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockKey};
use testkit::server::{fresh_integer, fresh_name, fresh_pair};

use crate::{NO_WAIT, connect, pool_of};

/// Asserts that a lock of sqlx and one of this crate exclude each other.
async fn assert_exclusive(own: &PgAdvisoryLock, key: &LockKey) {
    let (mut conn, mut other) = (connect().await, connect().await);
    let held = own.acquire(&mut conn).await.unwrap();
    let refused = other.try_acquire_advisory_lock(key, NO_WAIT).await;
    assert!(refused.unwrap().is_none());
    held.release_now().await.unwrap();
    let held = other.acquire_advisory_lock(key, NO_WAIT).await.unwrap();
    let refused = own.try_acquire(&mut conn).await.unwrap();
    assert!(matches!(refused, Either::Right(_)));
    held.release().await.unwrap();
}

#[tokio::test]
async fn names_of_sqlx_exclude_those_of_the_scheme() {
    let name = fresh_name();
    let own = PgAdvisoryLock::new(&name);
    assert_exclusive(&own, &schemes::sqlx(&name)).await;
}

#[tokio::test]
async fn integers_of_sqlx_exclude_the_same_integers() {
    let number = fresh_integer();
    let own = PgAdvisoryLock::with_key(PgAdvisoryLockKey::BigInt(number));
    assert_exclusive(&own, &LockKey::from(number)).await;
    let (first, second) = fresh_pair();
    let own = PgAdvisoryLock::with_key(PgAdvisoryLockKey::IntPair(first, second));
    assert_exclusive(&own, &LockKey::from((first, second))).await;
}

/// sqlx's lock takes the connection of a body by `AsMut`.
#[tokio::test]
async fn own_lock_nests_in_a_body_of_a_pool() {
    let (pool, name) = (pool_of(1).await, fresh_name());
    let inner = PgAdvisoryLock::new(&name);
    let done = pool
        .with_advisory_lock(fresh_name(), NO_WAIT, async |conn| {
            inner.acquire(conn).await?.release_now().await.map(drop)
        })
        .await;
    done.unwrap();
}
