//! What one acquire and release costs through Diesel, against the same two statements by hand on the same connection, prepared
//! and cached in the same way: `scripts/postgres run -- cargo bench --features diesel-postgres --bench cycle`.
//!
//! By hand twice: the two lock functions alone, and our own texts, which also ask which session answers and whether a transaction
//! is open. The difference between those two is the price of what we promise; the rest is this crate's own.
//!
//! On several processors, most of a round trip is one waking the other: `taskset -c 1` before the command shows the work.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench prints, and what goes wrong in it ends it"
)]

#[path = "shared/by_hand.rs"]
mod by_hand;
#[path = "shared/rounds.rs"]
mod rounds;

use std::cell::RefCell;

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions};
use diesel::pg::PgConnection;
use diesel::{Connection, RunQueryDsl};

use by_hand::{Columns, Texts, number, pg_advisory_unlock, pg_try_advisory_lock};
use rounds::{Contender, take_turns};

fn main() {
    let url = std::env::var("DATABASE_URL").expect("no DATABASE_URL: run it in scripts/postgres");
    let conn = RefCell::new(PgConnection::establish(&url).unwrap());
    let key = LockKey::from("benches/cycle");
    let texts = Texts::new(&key);
    let cycles = |name, mut cycle: Box<dyn FnMut(&mut PgConnection)>| {
        let conn = &conn;
        Contender::new(name, move |count| {
            let mut conn = conn.borrow_mut();
            (0..count).for_each(|_| cycle(&mut conn));
        })
    };
    let number = number(&key);
    let taken = take_turns(&mut [
        cycles(
            "the two functions by hand",
            Box::new(move |conn| functions_by_hand(conn, number)),
        ),
        cycles(
            "our two texts by hand",
            Box::new(move |conn| texts_by_hand(conn, texts, number)),
        ),
        cycles(
            "acquire_advisory_lock, release",
            Box::new(move |conn| ours(conn, &key)),
        ),
    ]);
    taken.print("a connection", 0..3, &["functions", "our texts"]);
}

fn ours(conn: &mut PgConnection, key: &LockKey) {
    let guard = conn.acquire_advisory_lock(key, LockOptions::no_wait());
    guard.unwrap().release().unwrap();
}

fn functions_by_hand(conn: &mut PgConnection, key: i64) {
    let granted: bool = diesel::select(pg_try_advisory_lock(key))
        .get_result(conn)
        .unwrap();
    let released: bool = diesel::select(pg_advisory_unlock(key))
        .get_result(conn)
        .unwrap();
    assert!(granted && released);
}

fn texts_by_hand(conn: &mut PgConnection, texts: Texts, key: i64) {
    let granted: Columns = texts.ask(key).get_result(conn).unwrap();
    let released: Columns = texts.release(key, granted).get_result(conn).unwrap();
    assert_eq!((granted.0, released.0), (Some(true), Some(true)));
}
