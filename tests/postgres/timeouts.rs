//! Every setting that ends statements, transactions or sessions after a time: without effect on a
//! wait that is longer, and unchanged by it.

use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions};
use diesel::Connection;
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::server::{block, connect, connect_with, fresh_key, kind_of, poll};
use testkit::temp::TempRole;
use testkit::timeouts::{limits_transactions, timeout_settings};

/// Long enough for a stalled machine: some of the settings also count while the client is idle.
const TIMEOUT: &str = "3s";
const LONGER: Duration = Duration::from_millis(3500);

fn values(conn: &mut PgConnection, settings: &[&str]) -> Vec<String> {
    settings.iter().map(|name| conn.setting(name)).collect()
}

fn set(command: &str, settings: &[&str]) -> String {
    let set = |name| format!("{command} {name} = '{TIMEOUT}'; ");
    settings.iter().map(set).collect()
}

/// Releases the lock after the waiter has waited for [`LONGER`]. Returns the result of the wait.
fn wait_longer(
    conn: &mut PgConnection,
    options: LockOptions,
    acquire: impl FnOnce(&mut PgConnection, &LockKey, LockOptions) -> Result<(), LockError> + Send,
) -> Result<(), LockError> {
    let (mut holder, key) = (connect(), fresh_key());
    let guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| acquire(conn, &key, options));
        let began = Instant::now();
        while began.elapsed() < LONGER && !waiting.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        guard.release().unwrap();
        waiting.join().unwrap()
    })
}

/// Waits with each strategy outside a transaction, and asserts the settings after it.
fn outside(mut open: impl FnMut() -> PgConnection) {
    let mut conns = [open(), open()];
    let settings = &timeout_settings(&mut conns[0]);
    thread::scope(|scope| {
        for (conn, options) in conns.iter_mut().zip([block(), poll()]) {
            scope.spawn(move || {
                let granted = wait_longer(conn, options, |conn, key, options| {
                    conn.acquire_advisory_lock(key, options)?.release()
                });
                granted.unwrap();
                let expected = vec![TIMEOUT; settings.len()];
                assert_eq!(values(conn, settings), expected, "{settings:?}");
            });
        }
    });
}

#[test]
fn timeouts_of_the_role_end_no_wait() {
    let role = TempRole::create();
    for name in timeout_settings(&mut connect()) {
        role.set(&format!("{name} = '{TIMEOUT}'"));
    }
    outside(|| connect_with(&role.login()));
}

#[test]
fn timeouts_of_the_session_end_no_wait() {
    outside(|| {
        let mut conn = connect();
        let settings = timeout_settings(&mut conn);
        conn.run(&set("SET", &settings));
        conn
    });
}

/// Except for `transaction_timeout`, which the caller has set for its own transaction.
#[test]
fn timeouts_of_the_transaction_end_no_wait() {
    thread::scope(|scope| {
        for options in [block(), poll()] {
            scope.spawn(move || {
                let mut conn = connect();
                let mut settings = timeout_settings(&mut conn);
                settings.retain(|name| *name != "transaction_timeout");
                conn.transaction(|conn| {
                    conn.run(&set("SET LOCAL", &settings));
                    let granted = wait_longer(conn, options, |conn, key, options| {
                        conn.acquire_advisory_xact_lock(key, options)
                    });
                    granted.unwrap();
                    let expected = vec![TIMEOUT; settings.len()];
                    assert_eq!(values(conn, &settings), expected, "{settings:?}");
                    diesel::QueryResult::Ok(())
                })
                .unwrap();
            });
        }
    });
}

/// The caller's own limit of its transaction ends a wait in it, and the session.
#[test]
fn transaction_timeout_ends_a_wait_in_a_transaction() {
    let (mut conn, mut holder, key) = (connect(), connect(), fresh_key());
    let supported = limits_transactions(&mut conn);
    let mut holder = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let waiter = conn.pid();
    let ended = conn.transaction(|conn| {
        let set = conn.try_run("SET LOCAL transaction_timeout = '500ms'");
        assert_eq!(set.is_ok(), supported, "{set:?}");
        set?;
        let ended = conn.acquire_advisory_xact_lock(&key, block());
        assert_eq!(kind_of(ended), Some(LockErrorKind::Database));
        diesel::QueryResult::Ok(())
    });
    assert!(ended.is_err());
    if supported {
        holder.wait_until_ended(waiter);
    }
}
