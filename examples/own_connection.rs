//! A dedicated connection for a lock. See `docs/own-connection.md`.
//!
//! While the guard lives, another process cannot acquire the lock.
//!
//! ```text
//! cargo run --example own_connection --features diesel-async-postgres,diesel-async-sqlite
//! scripts/postgres run -- \
//!     cargo run --example own_connection --features diesel-async-postgres,diesel-async-sqlite
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::env;
use std::process::Command;

use advisory_locking::{AsyncAdvisoryLockGuard, AsyncAdvisoryLocking, LockErrorKind, LockOptions};
use diesel::sqlite::SqliteConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Exit status of the second process if the lock is held elsewhere.
const HELD_ELSEWHERE: i32 = 3;

#[tokio::main]
async fn main() -> Outcome {
    let url = env::var("DATABASE_URL").unwrap_or_default();
    if url.starts_with("postgres") {
        run(AsyncPgConnection::establish(&url).await?).await
    } else {
        println!("on SQLite: DATABASE_URL is not a PostgreSQL URL");
        run(SyncConnectionWrapper::<SqliteConnection>::establish(":memory:").await?).await
    }
}

/// Runs on a connection that was opened for this lock and is closed after it.
async fn run<C: AsyncAdvisoryLocking + SimpleAsyncConnection>(mut conn: C) -> Outcome {
    let acquired = conn
        .acquire_advisory_lock("gold_leader", LockOptions::no_wait())
        .await;
    if env::args().nth(1).as_deref() == Some("second") {
        match acquired {
            Ok(guard) => return Ok(guard.release().await?),
            Err(error) if error.kind() == LockErrorKind::HeldElsewhere => {
                std::process::exit(HELD_ELSEWHERE)
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut guard: AsyncAdvisoryLockGuard<&mut C> = acquired?;
    // A statement through the guard runs on the session that holds the lock. If it succeeds, the
    // session lives, and the lock is held.
    guard.batch_execute("SELECT 1").await?;
    let during = second_process()?;
    let excludes = guard.capabilities().provides_mutual_exclusion();
    guard.release().await?;
    let after = second_process()?;

    println!("a second process, while the guard lives: {during:?}; afterwards: {after:?}");
    let expected = if excludes { HELD_ELSEWHERE } else { 0 };
    if (during, after) == (Some(expected), Some(0)) {
        Ok(())
    } else {
        Err(format!("expected {expected} and 0").into())
    }
}

/// Runs this program again, which requests the same lock. Returns its exit status.
fn second_process() -> Outcome<Option<i32>> {
    let status = Command::new(env::current_exe()?).arg("second").status()?;
    Ok(status.code())
}
