//! Create once: a webhook whose sender delivers one event twice. The guide's page is `docs/create-once.md`.
//!
//! A transaction-level lock on what is to be created. Code that forgot the transaction is refused, rather than left unprotected. The
//! crate logs, at level debug, when the lock is asked for and when it is granted.
//!
//! ```text
//! cargo run --example create_once --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- cargo run --example create_once --features diesel-postgres,diesel-sqlite
//! ```
#![expect(
    missing_docs,
    clippy::exhaustive_structs,
    reason = "of what Diesel's macros write"
)]

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions, WaitStrategy};
use diesel::prelude::*;

use support::{AnyConnection, Database, Outcome, check};

// No unique constraint, so that a second row would be seen.
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

/// To be called in a transaction, which the lock belongs to: it is released by the commit, when the next one can see the row.
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

    // Without a transaction the lock would be gone before the look.
    let Err(refused) = create_once(&mut conn, 1, || ()) else {
        return check(false, "refused outside a transaction");
    };
    let kind = match refused {
        diesel::result::Error::QueryBuilderError(error) => {
            error.downcast::<LockError>().map(|error| error.kind()).ok()
        }
        _ => None,
    };
    check(
        kind == Some(LockErrorKind::NotInTransaction),
        "refused outside a transaction",
    )?;

    let outcomes = deliver_twice(&database)?;
    check(
        outcomes == [Handled::Created, Handled::Found],
        "one delivery creates, the other finds",
    )?;
    let rows: i64 = pull_requests::table.count().get_result(&mut conn)?;
    check(rows == 1, "there is one row")
}

/// The second delivery asks for the lock while the first one is between its look and its insert.
fn deliver_twice(database: &Database) -> Outcome<[Handled; 2]> {
    let (mut first, mut second) = (database.connect()?, database.connect()?);
    if !database.excludes() {
        // Nobody would be kept out, so they come one after the other.
        let deliver =
            |conn: &mut AnyConnection| conn.transaction(|conn| create_once(conn, 1, || ()));
        return Ok([deliver(&mut first)?, deliver(&mut second)?]);
    }
    let (now, when) = mpsc::channel();
    thread::scope(|scope| {
        let second = scope.spawn(move || {
            // Should the first one fail, this one goes on as well.
            let _ = when.recv();
            second.transaction(|conn| create_once(conn, 1, || ()))
        });
        let first = first.transaction(|conn| {
            create_once(conn, 1, || {
                let _ = now.send(());
                if let Err(error) = database.until_somebody_queues(("pull-request", 1)) {
                    tracing::error!("{error}");
                }
            })
        });
        drop(now);
        let second = second.join().map_err(|_| "the second delivery panicked")?;
        Ok([first?, second?])
    })
}
