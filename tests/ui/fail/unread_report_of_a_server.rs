//! The report about a server is read: the call succeeds on a server whose locks exclude no session.
#![deny(unused_must_use)]

use advisory_locking::{AdvisoryLocking, LockError};
use rusqlite::Connection;

fn check_server(conn: &mut Connection) -> Result<(), LockError> {
    conn.identify()?;
    Ok(())
}

fn main() {}
