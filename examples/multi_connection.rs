//! Diesel's `MultiConnection`: which database it is is decided at run time.
//!
//! ```text
//! cargo run --example multi_connection --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- cargo run --example multi_connection --features diesel-postgres,diesel-sqlite
//! ```
#![expect(
    missing_docs,
    clippy::exhaustive_enums,
    reason = "of what Diesel's macro writes"
)]
#![expect(clippy::print_stdout, reason = "the program shows what happens")]

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

/// All that the enum needs to have every locking method.
impl DelegateLockSession for AnyConnection {
    fn session(&mut self) -> &mut dyn LockSession {
        match self {
            Self::Postgres(conn) => conn,
            Self::Sqlite(conn) => conn,
        }
    }
}

/// Says which database it is, rather than `AnyConnection::establish`, which tries one after the other: an address of a server
/// that is down must not become the name of a SQLite file.
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
        // The body gets the enum, with Diesel's own transactions.
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
