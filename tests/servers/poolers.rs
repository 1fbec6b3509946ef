//! Poolers that replay settings or read statements, and servers behind the pooler check.

use std::thread;

use advisory_locking::{
    AdvisoryLocking, AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind,
    LockOptions, PooledAdvisoryLocking, PoolingMode,
};
use diesel::Connection;
use diesel::pg::PgConnection;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::Observe;
use testkit::pooling_proxy::{Ability, PoolingProxy};
use testkit::server::{block, connect, eventually, fresh_key, url};

use crate::client::{
    Client, Scope, bb8_pool, block_on, r2d2_pool, sea_orm, sqlx_pool, with_lock_on,
};

fn detect(client: Client, url: &str) -> Result<PoolingMode, LockError> {
    match client {
        Client::Diesel => {
            let [mut first, mut second] =
                [url, url].map(|url| PgConnection::establish(url).unwrap());
            first.detect_pooler(&mut second)
        }
        Client::R2d2 => r2d2_pool(url, 2).detect_pooler(),
        Client::DieselAsync => block_on(async {
            let mut first = AsyncPgConnection::establish(url).await.unwrap();
            let mut second = AsyncPgConnection::establish(url).await.unwrap();
            first.detect_pooler(&mut second).await
        }),
        Client::Bb8 => block_on(async { bb8_pool(url, 2).await.detect_pooler().await }),
        Client::SeaOrm => block_on(async { sea_orm(url, 2).await.detect_pooler().await }),
        Client::Sqlx => block_on(async { sqlx_pool(url, 2).await.detect_pooler().await }),
    }
}

#[test]
fn each_pooler_has_its_verdict() {
    let server = url();
    let poolers = [
        Ability::Nothing,
        Ability::ReplaysSettings,
        Ability::PinsLockHolders,
    ]
    .map(PoolingProxy::start);
    let [plain, replaying, pinning] = poolers.each_ref().map(PoolingProxy::url);
    for client in Client::ALL {
        for (url, mode) in [
            (&server, PoolingMode::Dedicated),
            (&plain, PoolingMode::Multiplexed),
            (&replaying, PoolingMode::Multiplexed),
            (&pinning, PoolingMode::Pinned),
        ] {
            let detected = detect(client, url).unwrap();
            assert_eq!(detected, mode, "{client:?} {url}");
        }
    }
}

/// Else each client would be given a session of its own in rare schedules, as by a pooler that pins
/// lock holders.
#[test]
fn pooler_returns_a_session_before_the_reply() {
    let pooler = PoolingProxy::start(Ability::Nothing);
    let [mut first, mut second] = [(); 2].map(|()| PgConnection::establish(&pooler.url()).unwrap());
    for _ in 0..1_000 {
        assert_eq!(first.pid(), second.pid());
    }
}

#[test]
fn pooler_check_refuses_a_server_that_grants_everything() {
    let server = FakeServer::start(Rule::cockroach_db());
    for client in Client::ALL {
        let refused = detect(client, &server.url()).unwrap_err();
        assert_eq!(
            refused.kind(),
            LockErrorKind::NoMutualExclusion,
            "{client:?}"
        );
    }
}

/// A pooler that keeps lock holders' sessions: a polled lock is the holder's until its release.
#[test]
fn polled_lock_excludes_through_a_pinning_pooler() {
    let pooler = PoolingProxy::start(Ability::PinsLockHolders);
    for client in Client::ALL {
        let key = fresh_key();
        let mut holder = PgConnection::establish(&pooler.url()).unwrap();
        let guard = holder.acquire_advisory_lock(key.clone(), LockOptions::no_wait());
        let guard = guard.unwrap();
        let contended = LockOptions::no_wait();
        let called = with_lock_on(
            client,
            &pooler.url(),
            Scope::Session,
            contended,
            key.clone(),
        );
        assert_eq!(
            called.kind(),
            Some(LockErrorKind::HeldElsewhere),
            "{client:?}"
        );
        assert!(!called.body_ran, "{client:?}");
        guard.release().unwrap();
        assert_eq!(connect().holders(&key), []);
    }
}

/// The call that waits is in a `DO` block, which the pooler does not read.
#[test]
fn waited_lock_excludes_through_a_pinning_pooler() {
    let pooler = PoolingProxy::start(Ability::PinsLockHolders);
    let (key, no_wait) = (fresh_key(), LockOptions::no_wait());
    let (mut holder, mut observer) = (connect(), connect());
    let held = holder.acquire_advisory_lock(&key, no_wait).unwrap();
    let [mut waiter, mut other] = [(); 2].map(|()| PgConnection::establish(&pooler.url()).unwrap());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.acquire_advisory_lock(&key, block()).unwrap());
        eventually("the waiter is in the queue", || {
            observer.lock_entries(&key).len() == 2
        });
        held.release().unwrap();
        let guard = waiting.join().unwrap();
        let contended = other.try_acquire_advisory_lock(&key, no_wait).unwrap();
        assert!(contended.is_none(), "the session of the holder");
        drop(contended);
        guard.release().unwrap();
    });
    assert_eq!(observer.holders(&key), []);
}

/// The release of a dropped guard fails in a transaction that the client does not know of. A pooler
/// that replays the settings in its text reports no success, so the session is terminated.
#[test]
fn failed_release_is_not_replayed_as_a_success() {
    let pooler = PoolingProxy::start(Ability::ReplaysSettings);
    let key = fresh_key();
    block_on(async {
        let mut conn = AsyncPgConnection::establish(&pooler.url()).await.unwrap();
        let guard = conn.acquire_advisory_lock(key.clone(), LockOptions::no_wait());
        let mut guard = guard.await.unwrap();
        let aborted = guard.batch_execute("BEGIN; SELECT 1 / 0").await;
        assert!(aborted.is_err(), "the transaction is aborted");
        drop(guard);
        connect().wait_until_free(&key);
    });
}
