//! A lock manager over r2d2 with r2d2_postgres, from a thread without a runtime.

use std::time::Duration;

use advisory_locking::LockErrorKind::{HeldElsewhere, Lost};
use advisory_locking::lock_manager::{LockManager, LockManagerOptions};
use r2d2_postgres::PostgresConnectionManager;
use r2d2_postgres::postgres::NoTls;
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::server::{connect, eventually, url, with_parameters};

use crate::cases::{SHORT_KEEP_ALIVE, fresh_key, kind_of, no_wait, poll};

fn manager() -> LockManager {
    let options = LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE);
    manager_at(&url(), options)
}

fn manager_at(url: &str, options: LockManagerOptions) -> LockManager {
    let connections = PostgresConnectionManager::new(url.parse().unwrap(), NoTls);
    let pool = ::r2d2::Pool::builder().max_size(2).min_idle(Some(0));
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

/// The server loses what it has not flushed to its WAL.
#[test]
fn tokens_grow_across_a_crash() {
    let server = ClusterGuard::acquire();
    // The WAL writer flushes after 200 ms by default.
    let slow = "ALTER SYSTEM SET wal_writer_delay = '10s'";
    server.connect().run(slow);
    server.ctl(&["-m", "fast", "-w", "restart"]);
    // The private server commits asynchronously by default.
    let url = with_parameters(&server.url(), "options=-csynchronous_commit%3Don");
    let (key, mut tokens) = (fresh_key(), Vec::new());
    for _ in 0..2 {
        let manager = manager_at(&url, LockManagerOptions::new().keep_alive(Duration::MAX));
        for _ in 0..3 {
            let guard = manager.acquire_fenced_blocking(key.clone(), no_wait());
            let guard = guard.unwrap();
            tokens.push(guard.fencing_token().unwrap());
            guard.release_blocking().unwrap();
        }
        server.ctl(&["-m", "immediate", "-w", "restart"]);
    }
    let mut admin = server.connect();
    admin.run("ALTER SYSTEM RESET wal_writer_delay");
    admin.run("SELECT pg_reload_conf()");
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
}
