//! A lock manager over r2d2 with r2d2_postgres, from a thread without a runtime.

use advisory_locking::LockErrorKind::{HeldElsewhere, Lost};
use advisory_locking::lock_manager::{LockManager, LockManagerOptions};
use r2d2_postgres::PostgresConnectionManager;
use r2d2_postgres::postgres::NoTls;
use testkit::observer::Observe;
use testkit::server::{connect, eventually, url};

use crate::cases::{SHORT_KEEP_ALIVE, fresh_key, kind_of, no_wait, poll};

fn manager() -> LockManager {
    let connections = PostgresConnectionManager::new(url().parse().unwrap(), NoTls);
    let pool = ::r2d2::Pool::builder().max_size(2).min_idle(Some(0));
    let options = LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE);
    LockManager::over_blocking_pool_with(pool.build_unchecked(connections), options).unwrap()
}

#[test]
fn managers_over_r2d2_postgres_exclude_each_other() {
    let (one, other, key) = (manager(), manager(), fresh_key());
    let guard = one.acquire_blocking(key.clone(), no_wait()).unwrap();
    let contended = other.acquire_blocking(key.clone(), no_wait());
    assert_eq!(kind_of(contended), Some(HeldElsewhere));
    guard.release_blocking().unwrap();
    let guard = other.acquire_blocking(key, poll()).unwrap();
    guard.release_blocking().unwrap();
}

#[test]
fn holder_over_r2d2_postgres_learns_of_its_loss() {
    let (manager, key, mut observer) = (manager(), fresh_key(), connect());
    let guard = manager.acquire_blocking(key.clone(), no_wait()).unwrap();
    observer.terminate_holder(&key);
    eventually("news of the loss", || guard.is_lost());
    assert_eq!(kind_of(guard.release_blocking()), Some(Lost));
    let guard = manager.acquire_blocking(key, poll()).unwrap();
    guard.release_blocking().unwrap();
}
