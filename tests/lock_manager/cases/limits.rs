//! Many keys, and what there is too little of: locks on the server, connections in the pool.

#![allow(
    clippy::future_not_send,
    reason = "a case stays on its thread, and so does the server that it has for itself"
)]

use std::time::Duration;

use advisory_locking::LockErrorKind::{Pool, TooManyLocks};
use advisory_locking::LockKey;
use advisory_locking::lock_manager::LockManagerOptions;
use diesel::connection::SimpleConnection;
use futures_util::future::join_all;

use super::{fresh_key, kind_of, once, unwatched};
use crate::cluster::Private;
use crate::eyes::Eyes;
use crate::place::Place;
use crate::support::run;

fn keys(count: usize) -> Vec<LockKey> {
    (0..count).map(|_| fresh_key()).collect()
}

pub(crate) async fn ten_thousand_keys_on_one_session(place: Place) {
    let server = Private::take();
    let place = Place::at(place.kind, server.url());
    let locker = place.pool(1).await.locker(unwatched());
    let (keys, mut eyes) = (keys(10_000), Eyes::at(&place.url));
    let guards = locker.acquire_all(keys.clone(), once()).await.unwrap();
    let holder = eyes.holder(&keys[0]);
    assert_eq!(eyes.locks_of(&[holder]), 10_000);
    guards.release().await.unwrap();
    assert_eq!(eyes.locks_of(&[holder]), 0);
    locker.close().await;
}

/// Those that fit are granted, the others are told why, and what was held stays held.
pub(crate) async fn a_full_lock_table_refuses_what_does_not_fit(place: Place) {
    let server = Private::take();
    let place = Place::at(place.kind, server.url());
    let locker = place.pool(1).await.locker(unwatched());
    let (kept, keys, mut eyes) = (fresh_key(), keys(100), Eyes::at(&place.url));
    let kept = locker.acquire(&kept, once()).await.unwrap();
    let holder = eyes.holder(kept.key());
    let mut filler = server.connect();
    let fill = "SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) n";
    filler.batch_execute(fill).unwrap_err();
    run(
        &mut filler,
        "SELECT pg_advisory_unlock(n) FROM generate_series(1, 20) n",
    );

    let asked = join_all(keys.iter().map(|key| locker.acquire(key, once()))).await;
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
    assert_eq!(eyes.locks_of(&[holder]), held);
    for granted in granted {
        granted.unwrap().release().await.unwrap();
    }
    assert_eq!(eyes.holders(kept.key()), [holder]);
    kept.release().await.unwrap();
    assert_eq!(eyes.locks_of(&[holder]), 0);
}

pub(crate) async fn a_pool_without_connections_is_told_of(place: Place) {
    // Long enough to connect on a loaded machine.
    let checkout = Duration::from_secs(2);
    let pool = Place {
        checkout,
        ..place.clone()
    }
    .pool(1)
    .await;
    let locker = pool.locker(LockManagerOptions::new());
    let key = fresh_key();
    let meanwhile = async || {
        for options in [once(), super::poll()] {
            assert_eq!(kind_of(locker.acquire(&key, options).await), Some(Pool));
        }
    };
    pool.plainly(&fresh_key(), once(), meanwhile).await.unwrap();
    locker
        .acquire(&key, once())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}
