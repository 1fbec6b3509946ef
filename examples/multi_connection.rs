//! Diesel's `MultiConnection`: the program selects the database at run time.
//!
//! ```text
//! cargo run --example multi_connection --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- \
//!     cargo run --example multi_connection --features diesel-postgres,diesel-sqlite
//! ```
#![expect(
    missing_docs,
    clippy::exhaustive_enums,
    reason = "code that Diesel's macro generates"
)]
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::error::Error;
use std::time::Duration;

use advisory_locking::session::{DelegateLockSession, LockSession};
use advisory_locking::{AdvisoryLocking, LockOptions};
use diesel::prelude::*;

#[derive(diesel::MultiConnection)]
enum AnyConnection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// With this implementation the enum has every locking method.
impl DelegateLockSession for AnyConnection {
    fn session(&mut self) -> &mut dyn LockSession {
        match self {
            Self::Postgres(conn) => conn,
            Self::Sqlite(conn) => conn,
        }
    }
}

/// Connects to the database in `DATABASE_URL`, or to SQLite without one.
///
/// `AnyConnection::establish` tries one database after the other. So it would use the URL of an
/// unreachable server as the name of a SQLite file.
fn connect() -> ConnectionResult<AnyConnection> {
    match std::env::var("DATABASE_URL") {
        Ok(url) if url.starts_with("postgres") => {
            PgConnection::establish(&url).map(AnyConnection::Postgres)
        }
        _ => SqliteConnection::establish(":memory:").map(AnyConnection::Sqlite),
    }
}

fn update_driver(conn: &mut AnyConnection, driver: i32) -> QueryResult<usize> {
    let wait = LockOptions::wait_up_to(Duration::from_secs(10));
    conn.with_advisory_lock(("driver_update", driver), wait, |conn| {
        // The body receives the enum and can begin Diesel transactions.
        conn.transaction(|conn| diesel::sql_query("SELECT 1").execute(conn))
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let mut conn = connect()?;
    update_driver(&mut conn, 1)?;
    println!("updated on {:?}", conn.capabilities().backend());
    Ok(())
}
