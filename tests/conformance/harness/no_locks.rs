//! Shared parts of the harnesses on SQLite, which has no locks to observe.

use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::fixture::Harness;

/// Creates the table of [`SqlCommand::Write`].
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS written (number INTEGER)";

/// Statements, or a query that returns a number.
pub(crate) enum Sql<'s> {
    Run(&'s str),
    Query(&'s str),
}

pub(crate) fn run_sql(
    command: SqlCommand,
    mut run: impl FnMut(Sql<'_>) -> Result<i64, ()>,
) -> Outcome {
    let sql = match command {
        SqlCommand::Pid
        | SqlCommand::TryLock(..)
        | SqlCommand::Unlock(..)
        | SqlCommand::UnlockAll
        | SqlCommand::DiscardAll
        | SqlCommand::DeallocateAll => return Outcome::Unsupported,
        SqlCommand::SetSettings => return Outcome::Done,
        SqlCommand::Settings => return Outcome::Answered(Some(0)),
        SqlCommand::Count => {
            let count = run(Sql::Query("SELECT count(*) FROM written"));
            return count.map_or(Outcome::ClientFailed, |count| {
                Outcome::Answered(Some(count))
            });
        }
        SqlCommand::Begin => "BEGIN".to_owned(),
        SqlCommand::Commit => "COMMIT".to_owned(),
        SqlCommand::Rollback => "ROLLBACK".to_owned(),
        SqlCommand::Savepoint(name) => format!("SAVEPOINT {name}"),
        SqlCommand::RollbackTo(name) => format!("ROLLBACK TO {name}"),
        SqlCommand::Fail => "SELECT no_such_function()".to_owned(),
        SqlCommand::Run(sql) => sql.to_owned(),
        SqlCommand::Write => "INSERT INTO written VALUES (1)".to_owned(),
    };
    run(Sql::Run(&sql)).map_or(Outcome::ClientFailed, |_| Outcome::Done)
}

/// Runs SQL with Diesel.
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
        Sql::Query(sql) => fragment::<BigInt>(sql).get_result(conn),
    }
    .map_err(drop)
}

/// An adapter for SQLite.
pub(crate) struct OnSqlite {
    pub(crate) run: fn(&ActorChannel),
    pub(crate) sees_raw_transactions: bool,
    pub(crate) ends_raw_transactions: bool,
    pub(crate) survives_panics: bool,
}

impl OnSqlite {
    pub(crate) const fn blocking(run: fn(&ActorChannel)) -> Self {
        Self {
            run,
            sees_raw_transactions: false,
            ends_raw_transactions: false,
            survives_panics: true,
        }
    }

    #[allow(dead_code, reason = "async clients are features")]
    pub(crate) const fn asynchronous(run: fn(&ActorChannel)) -> Self {
        Self {
            survives_panics: false,
            ..Self::blocking(run)
        }
    }
}

impl Harness for OnSqlite {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        Box::new(self.run)
    }

    fn sees_raw_transactions(&self) -> bool {
        self.sees_raw_transactions
    }

    fn ends_raw_transactions(&self) -> bool {
        self.ends_raw_transactions
    }

    fn survives_panics(&self) -> bool {
        self.survives_panics
    }
}
