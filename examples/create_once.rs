//! Create once: a webhook that receives one event twice. See `docs/create-once.md`.
//!
//! The lock is transaction-level, on the id of the row to create. Outside a transaction the acquire
//! fails. The crate logs the request and the grant at level debug.
//!
//! ```text
//! cargo run --example create_once --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- cargo run --example create_once --features diesel-postgres,diesel-sqlite
//! ```
#![expect(
    missing_docs,
    clippy::exhaustive_structs,
    reason = "code that Diesel's macros generate"
)]

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions, WaitStrategy};
use diesel::prelude::*;

use support::{AnyConnection, Database, Outcome, check};

// Without a unique constraint, so that a second row would be seen.
const TABLE: &str = "CREATE TABLE pull_requests (id BIGINT NOT NULL, title TEXT NOT NULL)";

diesel::table! {
    pull_requests (id) {
        id -> BigInt,
        title -> Text,
    }
}

#[derive(Debug, Eq, PartialEq)]
enum Handled {
    Created,
    Found,
}

/// Creates the row unless it exists. Must be called in a transaction.
///
/// The commit releases the lock, so the next holder sees the row.
fn create_once(
    conn: &mut AnyConnection,
    id: i64,
    found_none: impl FnOnce(),
) -> QueryResult<Handled> {
    let wait = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(WaitStrategy::Block);
    conn.acquire_advisory_xact_lock(("pull-request", id), wait)?;
    let there: i64 = pull_requests::table
        .filter(pull_requests::id.eq(id))
        .count()
        .get_result(conn)?;
    if there > 0 {
        return Ok(Handled::Found);
    }
    found_none();
    diesel::insert_into(pull_requests::table)
        .values((
            pull_requests::id.eq(id),
            pull_requests::title.eq("Lock before you look"),
        ))
        .execute(conn)?;
    Ok(Handled::Created)
}

fn main() -> Outcome {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .init();
    let database = Database::create("create_once", TABLE)?;
    let mut conn = database.connect()?;

    // Without a transaction the server would release the lock before the look.
    let Err(error) = create_once(&mut conn, 1, || ()) else {
        return check(false, "an acquire outside a transaction fails");
    };
    let kind = LockError::find(&error).map(LockError::kind);
    check(
        kind == Some(LockErrorKind::NotInTransaction),
        "an acquire outside a transaction fails",
    )?;

    let outcomes = deliver_twice(&database)?;
    check(
        outcomes == [Handled::Created, Handled::Found],
        "one delivery creates, the other finds",
    )?;
    let rows: i64 = pull_requests::table.count().get_result(&mut conn)?;
    check(rows == 1, "there is one row")
}

/// Delivers twice. The second delivery requests the lock between the first one's look and insert.
fn deliver_twice(database: &Database) -> Outcome<[Handled; 2]> {
    let (mut first, mut second) = (database.connect()?, database.connect()?);
    if !database.excludes() {
        // Without mutual exclusion, deliver one after the other.
        let deliver =
            |conn: &mut AnyConnection| conn.transaction(|conn| create_once(conn, 1, || ()));
        return Ok([deliver(&mut first)?, deliver(&mut second)?]);
    }
    let (sender, looked) = mpsc::channel();
    thread::scope(|scope| {
        let second = scope.spawn(move || {
            // An error means that the first delivery failed. Continue in both cases.
            let _ = looked.recv();
            second.transaction(|conn| create_once(conn, 1, || ()))
        });
        let first = first.transaction(|conn| {
            create_once(conn, 1, || {
                let _ = sender.send(());
                if let Err(error) = database.wait_for_waiter(("pull-request", 1)) {
                    tracing::error!("{error}");
                }
            })
        });
        drop(sender);
        let second = second.join().map_err(|_| "the second delivery panicked")?;
        Ok([first?, second?])
    })
}
