//! What the harnesses on SQLite share. Nobody is ever held out, so there is nobody to observe.

use crate::actor::{Outcome, Raw};

/// Written to by [`Raw::Write`].
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS written (number INTEGER)";

/// Runs a statement, or asks for the number that a query returns.
pub(crate) enum Sql<'s> {
    Run(&'s str),
    Ask(&'s str),
}

pub(crate) fn raw(raw: Raw, mut run: impl FnMut(Sql<'_>) -> Result<i64, ()>) -> Outcome {
    let sql = match raw {
        Raw::Pid | Raw::TryLock(..) | Raw::Unlock(..) | Raw::UnlockAll => return Outcome::Absent,
        Raw::SetSettings => return Outcome::Done,
        Raw::Settings => return Outcome::Answered(Some(0)),
        Raw::Count => {
            let count = run(Sql::Ask("SELECT count(*) FROM written"));
            return count.map_or(Outcome::ClientFailed, |count| {
                Outcome::Answered(Some(count))
            });
        }
        Raw::Begin => "BEGIN".to_owned(),
        Raw::Commit => "COMMIT".to_owned(),
        Raw::Rollback => "ROLLBACK".to_owned(),
        Raw::Savepoint(name) => format!("SAVEPOINT {name}"),
        Raw::RollbackTo(name) => format!("ROLLBACK TO {name}"),
        Raw::Fail => "SELECT no_such_function()".to_owned(),
        Raw::Run(sql) => sql.to_owned(),
        Raw::Write => "INSERT INTO written VALUES (1)".to_owned(),
    };
    run(Sql::Run(&sql)).map_or(Outcome::ClientFailed, |_| Outcome::Done)
}

/// Runs it with Diesel.
#[cfg(feature = "diesel-sqlite")]
pub(crate) fn diesel(
    conn: &mut ::diesel::sqlite::SqliteConnection,
    sql: Sql<'_>,
) -> Result<i64, ()> {
    use ::diesel::RunQueryDsl;
    use ::diesel::connection::SimpleConnection;
    use ::diesel::dsl::sql as fragment;
    use ::diesel::sql_types::BigInt;

    match sql {
        Sql::Run(sql) => conn.batch_execute(sql).map(|()| 0),
        Sql::Ask(sql) => fragment::<BigInt>(sql).get_result(conn),
    }
    .map_err(drop)
}

/// The part of a [`Harness`](crate::stage::Harness) that is the same on every client of SQLite.
macro_rules! without_locks {
    () => {
        fn holders(&self, _: &advisory_locking::LockKey) -> Vec<crate::stage::Held> {
            Vec::new()
        }

        fn excludes(&self) -> bool {
            false
        }

        fn terminate(&self, _: i32) {
            panic!("SQLite has no sessions to end");
        }

        fn cancel(&self, _: i32) {
            panic!("SQLite has no sessions to cancel");
        }
    };
}
pub(crate) use without_locks;
