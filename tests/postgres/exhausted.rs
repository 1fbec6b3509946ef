//! The server's lock table is full. In a cluster of the test's own, because it is full for everybody.

use std::process::Command;

use advisory_locking::{AdvisoryLocking, LockErrorKind, LockKey, LockOptions};
use diesel::Connection;
use diesel::connection::SimpleConnection;

use super::support::{block, connect, is_free, kind_of, pid_of, poll, run};

const INSIDE: &str = "ADVISORY_LOCKING_TESTS_MAY_FILL_THE_LOCK_TABLE";

#[test]
fn a_full_lock_table_is_reported_and_passes() {
    if std::env::var_os(INSIDE).is_some() {
        return fill_the_lock_table();
    }
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres"))
        .args(["run", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "exhausted::a_full_lock_table_is_reported_and_passes",
        ])
        .env_remove("DATABASE_URL")
        .env(INSIDE, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn fill_the_lock_table() {
    let mut observer = connect();
    let mut conn = connect();
    let pid = pid_of(&mut conn);
    let mut filler = connect();
    // The error leaves what was locked before it.
    filler
        .batch_execute(
            "SELECT count(pg_advisory_lock(0, number)) FROM generate_series(1, 1000000) AS number",
        )
        .unwrap_err();

    // Shared memory is handed out in pieces, and one may be left for this key but not for that: several are asked for.
    let keys: Vec<_> = (0..10_i64).map(LockKey::from).collect();
    let full = Some(LockErrorKind::TooManyLocks);
    for key in &keys {
        for options in [LockOptions::no_wait(), poll(), block()] {
            let ended = conn.acquire_advisory_lock(key, options).map(drop);
            assert_eq!(kind_of(ended), full);
            assert!(is_free(&mut observer, key));
        }
    }
    conn.transaction(|conn| {
        let ended = conn.acquire_advisory_xact_lock(&keys[0], block());
        // The failed statement has aborted the transaction, and Diesel hides why.
        assert_eq!(kind_of(ended), Some(LockErrorKind::TransactionAborted));
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    })
    .unwrap_err();

    run(&mut filler, "SELECT pg_advisory_unlock_all()");
    for key in &keys {
        conn.acquire_advisory_lock(key, block())
            .unwrap()
            .release()
            .unwrap();
    }
    assert_eq!(pid_of(&mut conn), pid);
}
