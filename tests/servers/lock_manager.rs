//! A lock manager on servers that show a sign.

use std::time::Duration;

use advisory_locking::lock_manager::{LockManager, LockManagerOptions};
use advisory_locking::{LockErrorKind, LockKey, LockOptions};
use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::Observe;
use testkit::server::{block, connect, fresh_key, kind_of, poll};

use crate::client::{bb8_pool, block_on, r2d2_pool, sea_orm, sqlx_pool};
use crate::signs::refused_servers;

#[derive(Clone, Copy, Debug)]
enum PoolKind {
    R2d2,
    Bb8,
    SeaOrm,
    Sqlx,
}

const POOLS: [PoolKind; 4] = [
    PoolKind::R2d2,
    PoolKind::Bb8,
    PoolKind::SeaOrm,
    PoolKind::Sqlx,
];

async fn manager(kind: PoolKind, url: &str, options: LockManagerOptions) -> LockManager {
    match kind {
        PoolKind::R2d2 => LockManager::over_blocking_pool_with(r2d2_pool(url, 3), options),
        PoolKind::Bb8 => LockManager::over_async_pool_with(bb8_pool(url, 3).await, options),
        PoolKind::SeaOrm => LockManager::over_async_pool_with(sea_orm(url, 3).await, options),
        PoolKind::Sqlx => LockManager::over_async_pool_with(sqlx_pool(url, 3).await, options),
    }
    .unwrap()
}

/// Returns the kinds of the errors of every way to acquire a lock.
async fn every_call(locks: &LockManager, key: &LockKey) -> [Option<LockErrorKind>; 5] {
    [
        kind_of(locks.acquire(key, LockOptions::no_wait()).await),
        kind_of(locks.acquire(key, poll()).await),
        kind_of(locks.acquire(key, block()).await),
        kind_of(
            locks
                .acquire_all([key.clone(), fresh_key()], LockOptions::no_wait())
                .await,
        ),
        kind_of(locks.acquire_fenced(key, LockOptions::no_wait()).await),
    ]
}

#[test]
fn lock_manager_refuses_the_server() {
    for (rules, kind) in refused_servers() {
        let server = FakeServer::start(rules);
        for pool in POOLS {
            block_on(async {
                let locks = manager(pool, &server.url(), LockManagerOptions::new()).await;
                let key = fresh_key();
                let kinds = every_call(&locks, &key).await;
                assert_eq!(kinds, [Some(kind); 5], "{pool:?}");
                assert_eq!(connect().holders(&key), [], "{pool:?}");
                locks.close().await;
            });
        }
    }
}

#[test]
fn lock_manager_reports_missing_lock_functions() {
    let server = FakeServer::start(Rule::no_lock_functions());
    for pool in POOLS {
        let kind = match pool {
            PoolKind::SeaOrm | PoolKind::Sqlx => LockErrorKind::Unsupported,
            // Diesel hides the SQLSTATE.
            PoolKind::R2d2 | PoolKind::Bb8 => LockErrorKind::Pool,
        };
        block_on(async {
            let locks = manager(pool, &server.url(), LockManagerOptions::new()).await;
            let kinds = every_call(&locks, &fresh_key()).await;
            assert_eq!(kinds, [Some(kind); 5], "{pool:?}");
            locks.close().await;
        });
    }
}

#[test]
fn lock_manager_accepts_the_server_by_its_options() {
    let accepting = LockManagerOptions::new().allow_standby().trust_server();
    for rules in [Rule::cockroach_db(), vec![Rule::standby()]] {
        let server = FakeServer::start(rules);
        for pool in POOLS {
            block_on(async {
                let locks = manager(pool, &server.url(), accepting.clone()).await;
                let key = fresh_key();
                assert_eq!(every_call(&locks, &key).await, [None; 5], "{pool:?}");
                // They are no options of a call.
                for options in [
                    LockOptions::wait_up_to(Duration::from_secs(1)).allow_standby(),
                    LockOptions::no_wait().trust_server(),
                ] {
                    let refused = kind_of(locks.acquire(&key, options).await);
                    assert_eq!(refused, Some(LockErrorKind::InvalidOptions));
                }
                locks.close().await;
            });
        }
    }
}
