//! A service that uses PostgreSQL in production. Its unit tests run on SQLite, with simulated
//! contention and injected faults.
//!
//! ```text
//! cargo test --example testing --features diesel-postgres,diesel-sqlite,testing
//! scripts/postgres run -- cargo run --example testing \
//!     --features diesel-postgres,diesel-sqlite,testing
//! ```
//!
//! Real projects enable the feature `testing` under `[dev-dependencies]`.
#![cfg_attr(
    test,
    allow(dead_code, reason = "the tests do not run the program itself")
)]

mod support;

use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockError, LockOptions, OnMissingLock};
use diesel::prelude::*;
use diesel::sql_types::Text;

use support::{AnyConnection, Database, Outcome, check};

const SHORT: Duration = Duration::from_millis(50);

const TABLE: &str = "CREATE TABLE reports (day TEXT NOT NULL)";

#[derive(Debug, Eq, PartialEq)]
enum Report {
    Written,
    /// Another session held the lock until the limit passed.
    Contended,
    /// Written, but the lock was lost before the release. Another session may have written it too.
    InDoubt,
}

/// The function under test.
fn write_report(conn: &mut AnyConnection, day: &str, limit: Duration) -> QueryResult<Report> {
    let wait = LockOptions::wait_up_to(limit).on_missing_lock(OnMissingLock::Ignore);
    let written = conn.try_with_advisory_lock(("report", day), wait, |conn| {
        diesel::sql_query("INSERT INTO reports VALUES ($1)")
            .bind::<Text, _>(day)
            .execute(conn)
    });
    match written {
        Ok(Some(_)) => Ok(Report::Written),
        Ok(None) => Ok(Report::Contended),
        Err(error) if LockError::find(&error).is_some_and(LockError::is_lost) => {
            Ok(Report::InDoubt)
        }
        Err(error) => Err(error),
    }
}

/// The program in production. A second session holds the lock, which excludes nothing on SQLite.
fn main() -> Outcome {
    let database = Database::create("testing", TABLE)?;
    let (mut conn, mut second) = (database.connect()?, database.connect()?);
    check(
        write_report(&mut conn, "monday", SHORT)? == Report::Written,
        "monday is written",
    )?;

    let other = second.acquire_advisory_lock(("report", "tuesday"), LockOptions::no_wait())?;
    let expected = if database.excludes() {
        Report::Contended
    } else {
        Report::Written
    };
    let report = write_report(&mut conn, "tuesday", SHORT)?;
    check(report == expected, &format!("tuesday: {report:?}"))?;
    Ok(other.release()?)
}

#[cfg(test)]
mod tests {
    use advisory_locking::testing::{Event, Fault, TestLocks};
    use diesel::connection::SimpleConnection;

    use super::*;

    fn connect() -> AnyConnection {
        let mut conn = AnyConnection::Sqlite(SqliteConnection::establish(":memory:").unwrap());
        conn.batch_execute(TABLE).unwrap();
        conn
    }

    #[test]
    fn report_is_written_under_its_lock() {
        let locks = TestLocks::enter();
        assert_eq!(
            write_report(&mut connect(), "monday", SHORT).unwrap(),
            Report::Written
        );
        let key = ("report", "monday");
        assert_eq!(locks.events(), [Event::acquired(key), Event::released(key)]);
    }

    #[test]
    fn contended_lock_writes_nothing() {
        let locks = TestLocks::enter();
        let _other = locks.hold_from_other_session(("report", "monday"));
        assert_eq!(
            write_report(&mut connect(), "monday", SHORT).unwrap(),
            Report::Contended
        );
        assert_eq!(locks.events(), [Event::timed_out(("report", "monday"))]);
        // Another day has another key.
        assert_eq!(
            write_report(&mut connect(), "tuesday", SHORT).unwrap(),
            Report::Written
        );
    }

    #[test]
    fn lost_lock_is_in_doubt() {
        let locks = TestLocks::enter();
        locks.inject_fault(("report", "monday"), Fault::Lost);
        assert_eq!(
            write_report(&mut connect(), "monday", SHORT).unwrap(),
            Report::InDoubt
        );
    }

    #[test]
    fn two_at_once_take_turns() {
        let locks = TestLocks::enter_exclusive();
        let limit = Duration::from_secs(60);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let _here = locks.attach();
                    assert_eq!(
                        write_report(&mut connect(), "monday", limit).unwrap(),
                        Report::Written
                    );
                });
            }
        });
        let (acquired, released) = (Event::acquired, Event::released);
        let key = ("report", "monday");
        assert_eq!(
            locks.events(),
            [acquired(key), released(key), acquired(key), released(key)]
        );
    }
}
