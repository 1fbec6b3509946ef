//! The lock's own connection: the guard is the connection that holds the lock, and another process is refused while it lives. The
//! guide's page is `docs/own-connection.md`.
//!
//! ```text
//! cargo run --example own_connection --features diesel-async-postgres,diesel-async-sqlite
//! scripts/postgres run -- cargo run --example own_connection --features diesel-async-postgres,diesel-async-sqlite
//! ```
#![expect(clippy::print_stdout, reason = "the program shows what happens")]

use std::env;
use std::process::Command;

use advisory_locking::{AsyncAdvisoryLockGuard, AsyncAdvisoryLocking, LockErrorKind, LockOptions};
use diesel::sqlite::SqliteConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// With which status the second process says that it was refused.
const REFUSED: i32 = 3;

#[tokio::main]
async fn main() -> Outcome {
    let url = env::var("DATABASE_URL").unwrap_or_default();
    if url.starts_with("postgres") {
        run(AsyncPgConnection::establish(&url).await?).await
    } else {
        println!("on SQLite: DATABASE_URL names no PostgreSQL");
        run(SyncConnectionWrapper::<SqliteConnection>::establish(":memory:").await?).await
    }
}

/// On a connection that was opened for this lock, and is closed with it.
async fn run<C: AsyncAdvisoryLocking + SimpleAsyncConnection>(mut conn: C) -> Outcome {
    let taken = conn
        .acquire_advisory_lock("gold_leader", LockOptions::no_wait())
        .await;
    if env::args().nth(1).as_deref() == Some("second") {
        match taken {
            Ok(guard) => return Ok(guard.release().await?),
            Err(error) if error.kind() == LockErrorKind::HeldElsewhere => {
                std::process::exit(REFUSED)
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut guard: AsyncAdvisoryLockGuard<&mut C> = taken?;
    // Through the guard, so on the connection that holds the lock: as long as this goes well, the lock is held.
    guard.batch_execute("SELECT 1").await?;
    let during = second_process()?;
    let excludes = guard.capabilities().provides_mutual_exclusion();
    guard.release().await?;
    let after = second_process()?;

    println!("a second process, while the guard lives: {during:?}; afterwards: {after:?}");
    let expected = if excludes { REFUSED } else { 0 };
    if (during, after) == (Some(expected), Some(0)) {
        Ok(())
    } else {
        Err(format!("expected {expected} and 0").into())
    }
}

/// This program once more, asking for the same lock.
fn second_process() -> Outcome<Option<i32>> {
    let status = Command::new(env::current_exe()?).arg("second").status()?;
    Ok(status.code())
}
