//! Cost of one acquire and release through Diesel, relative to hand-written statements.
//!
//! ```sh
//! scripts/postgres run -- cargo bench --features diesel-postgres --bench cycle
//! ```
//!
//! All contenders use one connection and prepared, cached lock statements. The baselines are:
//!
//! | baseline | statements |
//! |---|---|
//! | lock functions only | the two lock functions |
//! | crate's statements | those that the crate sends, which also return the session and the begin of the transaction |
//! | without server signs | the same, without the signs of a refused server |
//! | three statements | `BEGIN`, a transaction-level lock function, `COMMIT` |
//!
//! The difference between the first two is the cost of the crate's guarantees in SQL. The rest is
//! the cost of its code.
//!
//! On several CPUs, wake-ups dominate a round trip. `taskset -c 1` before the command measures the
//! work alone.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench prints its results and ends at the first error"
)]

#[path = "shared/baseline.rs"]
mod baseline;
#[path = "shared/interleave.rs"]
mod interleave;

use std::cell::RefCell;

use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::{Connection, RunQueryDsl};

use baseline::{
    LockStatements, ReleaseReplyColumns, TryReplyColumns, number, pg_advisory_unlock,
    pg_try_advisory_lock, pg_try_advisory_xact_lock,
};
use interleave::{Contender, run_interleaved};

const NO_WAIT: LockOptions = LockOptions::no_wait();

fn main() {
    let url = std::env::var("DATABASE_URL").expect("no DATABASE_URL: run it in scripts/postgres");
    let conn = RefCell::new(PgConnection::establish(&url).unwrap());
    let key = LockKey::from("benches/cycle");
    let statements = LockStatements::new(&key);
    let cycles = |name, mut cycle: Box<dyn FnMut(&mut PgConnection)>| {
        let conn = &conn;
        Contender::new(name, move |count| {
            let mut conn = conn.borrow_mut();
            (0..count).for_each(|_| cycle(&mut conn));
        })
    };
    let number = number(&key);
    let samples = run_interleaved(&mut [
        cycles(
            "hand-written, lock functions only",
            Box::new(move |conn| baseline_functions(conn, number)),
        ),
        cycles(
            "hand-written, crate's statements",
            Box::new(move |conn| baseline_statements(conn, statements, number)),
        ),
        cycles(
            "hand-written, without server signs",
            Box::new(move |conn| baseline_without_signs(conn, statements, number)),
        ),
        cycles(
            "acquire_advisory_lock, release",
            Box::new(|conn| acquire_and_release(conn, &key)),
        ),
        cycles(
            "hand-written, three statements",
            Box::new(move |conn| baseline_transaction(conn, number)),
        ),
        cycles(
            "with_advisory_xact_lock",
            Box::new(|conn| lock_in_transaction(conn, &key)),
        ),
    ]);
    samples.print(
        "a connection",
        0..4,
        &["functions", "statements", "no signs"],
    );
    samples.print("a transaction", 4..6, &["statements"]);
}

fn acquire_and_release(conn: &mut PgConnection, key: &LockKey) {
    let guard = conn.acquire_advisory_lock(key, NO_WAIT);
    guard.unwrap().release().unwrap();
}

fn lock_in_transaction(conn: &mut PgConnection, key: &LockKey) {
    conn.with_advisory_xact_lock(key, NO_WAIT, |_| Ok::<_, LockError>(()))
        .unwrap();
}

fn baseline_functions(conn: &mut PgConnection, key: i64) {
    let granted: bool = diesel::select(pg_try_advisory_lock(key))
        .get_result(conn)
        .unwrap();
    let released: bool = diesel::select(pg_advisory_unlock(key))
        .get_result(conn)
        .unwrap();
    assert!(granted && released);
}

fn baseline_statements(conn: &mut PgConnection, statements: LockStatements, key: i64) {
    let granted: TryReplyColumns = statements.try_acquire(key).get_result(conn).unwrap();
    let released: ReleaseReplyColumns = statements.release(key, granted).get_result(conn).unwrap();
    assert_eq!((granted.0, released.0), (Some(1), Some(true)));
}

fn baseline_without_signs(conn: &mut PgConnection, statements: LockStatements, key: i64) {
    let granted = LockStatements::try_without_signs(key).get_result(conn);
    let granted: TryReplyColumns = granted.unwrap();
    let released: ReleaseReplyColumns = statements.release(key, granted).get_result(conn).unwrap();
    assert_eq!((granted.0, released.0), (Some(1), Some(true)));
}

fn baseline_transaction(conn: &mut PgConnection, key: i64) {
    conn.batch_execute("BEGIN").unwrap();
    let granted: bool = diesel::select(pg_try_advisory_xact_lock(key))
        .get_result(conn)
        .unwrap();
    assert!(granted);
    conn.batch_execute("COMMIT").unwrap();
}
