//! Skip if busy: a background sync that runs once at a time per client. See `docs/skip-if-busy.md`.
//!
//! The body runs with the lock or not at all, and the result says which.
//!
//! ```text
//! cargo run --example skip_if_busy --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- \
//!     cargo run --example skip_if_busy --features diesel-postgres,diesel-sqlite
//! ```
mod support;

use advisory_locking::{AdvisoryLocking, LockOptions};
use diesel::prelude::*;

use support::{AnyConnection, Database, Outcome, check};

/// The work of a sync. In this program it tries further syncs meanwhile.
type Work<'w> = &'w mut dyn FnMut(&mut AnyConnection) -> QueryResult<()>;

/// Syncs a client. Returns `None` if another process is syncing it.
fn sync(conn: &mut AnyConnection, client_id: i32, work: Work<'_>) -> QueryResult<Option<()>> {
    conn.try_with_advisory_lock(("sync", client_id), LockOptions::no_wait(), |conn| {
        work(conn)
    })
}

fn main() -> Outcome {
    tracing_subscriber::fmt().without_time().init();
    let database = Database::create("skip_if_busy", "CREATE TABLE synced (client INTEGER)")?;
    let (mut first, mut second) = (database.connect()?, database.connect()?);

    let mut meanwhile = Vec::new();
    let mut nothing = |_: &mut AnyConnection| Ok(());
    let ran = sync(&mut first, 4, &mut |conn| {
        diesel::sql_query("INSERT INTO synced VALUES (4)").execute(conn)?;
        for client in [4, 4, 5] {
            meanwhile.push(sync(&mut second, client, &mut nothing)?.is_some());
        }
        Ok(())
    })?;
    check(ran.is_some(), "the first one ran")?;
    if database.excludes() {
        // A failed try must not release the lock: the second try fails, too.
        check(
            meanwhile == [false, false, true],
            "client 4 was skipped twice meanwhile, client 5 not",
        )?;
    } else {
        check(
            meanwhile == [true, true, true],
            "SQLite does not exclude other sessions",
        )?;
    }
    let again = sync(&mut second, 4, &mut nothing)?;
    check(again.is_some(), "afterwards client 4 can be synced again")
}
