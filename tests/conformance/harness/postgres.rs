//! What the harnesses on PostgreSQL share: the server, the observer, and SQL by hand.

use std::cell::RefCell;

use advisory_locking::{KeySpace, LockKey, LockMode};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, SmallInt};
use diesel::{Connection, QueryResult, QueryableByName, RunQueryDsl, sql_query};

use crate::actor::{Outcome, Raw};
use crate::stage::Held;

/// The server of the tests.
pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| {
        panic!("DATABASE_URL is not set: run ./scripts/test, which starts a private server")
    })
}

/// A connection with a table of its own to write to.
pub(crate) fn connect() -> PgConnection {
    let mut conn = PgConnection::establish(&url()).expect("the server accepts connections");
    prepare(&mut conn).expect("a temporary table can be made");
    conn
}

/// Written to by [`Raw::Write`].
pub(crate) const TABLE: &str = "CREATE TEMPORARY TABLE IF NOT EXISTS written (number integer)";

pub(crate) fn prepare(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute(TABLE)
}

/// Somebody who looks at the server's lock table.
pub(crate) struct Observer(RefCell<PgConnection>);

#[derive(QueryableByName)]
struct LockRow {
    #[diesel(sql_type = Integer)]
    pid: i32,
    #[diesel(sql_type = Bool)]
    exclusive: bool,
    #[diesel(sql_type = Bool)]
    granted: bool,
}

#[derive(QueryableByName)]
pub(crate) struct Number {
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(crate) number: Option<i64>,
}

impl Observer {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(connect()))
    }

    pub(crate) fn holders(&self, key: &LockKey) -> Vec<Held> {
        let (classid, objid, objsubid) = key.space().pg_locks_columns();
        let rows: Vec<LockRow> = sql_query(
            "SELECT pid, mode = 'ExclusiveLock' AS exclusive, granted FROM pg_locks \
             WHERE locktype = 'advisory' \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND classid = $1::oid AND objid = $2::oid AND objsubid = $3 \
             ORDER BY granted DESC, CASE WHEN granted THEN pid END, waitstart, mode, pid",
        )
        .bind::<BigInt, _>(i64::from(classid))
        .bind::<BigInt, _>(i64::from(objid))
        .bind::<SmallInt, _>(i16::try_from(objsubid).expect("1 or 2"))
        .load(&mut *self.0.borrow_mut())
        .expect("pg_locks can be read");
        let mode = |exclusive| {
            if exclusive {
                LockMode::Exclusive
            } else {
                LockMode::Shared
            }
        };
        rows.into_iter()
            .map(|row| Held {
                pid: row.pid,
                mode: mode(row.exclusive),
                granted: row.granted,
            })
            .collect()
    }

    /// Calls a function on a session's process.
    pub(crate) fn signal(&self, function: &str, pid: i32) {
        self.0
            .borrow_mut()
            .batch_execute(&format!("SELECT {function}({pid})"))
            .expect("a session of the same user can be signalled");
    }
}

/// Runs a statement, or asks for the number that a query returns.
pub(crate) enum Text {
    Run(String),
    Ask(String),
}

/// What is done without the library, as SQL.
pub(crate) fn text(raw: Raw) -> Text {
    let number = match raw {
        Raw::Pid => "pg_backend_pid()".to_owned(),
        Raw::TryLock(key, mode) => call("pg_try_advisory_lock", key, mode),
        Raw::Unlock(key, mode) => call("pg_advisory_unlock", key, mode),
        Raw::Count => "(SELECT count(*) FROM written)".to_owned(),
        Raw::Settings => "(SELECT sum(setting::int8) FROM pg_settings \
             WHERE name IN ('lock_timeout', 'statement_timeout'))"
            .to_owned(),
        Raw::UnlockAll => return Text::Run("SELECT pg_advisory_unlock_all()".to_owned()),
        Raw::Begin => return Text::Run("BEGIN".to_owned()),
        Raw::Commit => return Text::Run("COMMIT".to_owned()),
        Raw::Rollback => return Text::Run("ROLLBACK".to_owned()),
        Raw::Savepoint(name) => return Text::Run(format!("SAVEPOINT {name}")),
        Raw::RollbackTo(name) => return Text::Run(format!("ROLLBACK TO SAVEPOINT {name}")),
        Raw::Fail => return Text::Run("SELECT 1/0".to_owned()),
        Raw::Write => return Text::Run("INSERT INTO written VALUES (1)".to_owned()),
        Raw::SetSettings => {
            return Text::Run("SET lock_timeout = '7s'; SET statement_timeout = '90s'".to_owned());
        }
    };
    Text::Ask(format!("SELECT ({number})::int8 AS number"))
}

pub(crate) fn raw(conn: &mut PgConnection, raw: Raw) -> Outcome {
    match text(raw) {
        Text::Run(sql) => conn
            .batch_execute(&sql)
            .map_or(Outcome::ClientFailed, |()| Outcome::Done),
        Text::Ask(sql) => sql_query(sql)
            .get_result::<Number>(conn)
            .map_or(Outcome::ClientFailed, |row| Outcome::Answered(row.number)),
    }
}

fn call(function: &str, key: KeySpace, mode: LockMode) -> String {
    let suffix = match mode {
        LockMode::Exclusive => "",
        LockMode::Shared => "_shared",
    };
    match key {
        KeySpace::Single(number) => format!("{function}{suffix}('{number}'::int8)::int"),
        KeySpace::Pair(first, second) => {
            format!("{function}{suffix}('{first}'::int4, '{second}'::int4)::int")
        }
    }
}

/// The part of a [`Harness`](crate::stage::Harness) that is the same on every client of the server.
macro_rules! on_postgres {
    () => {
        fn holders(&self, key: &advisory_locking::LockKey) -> Vec<crate::stage::Held> {
            self.observer.holders(key)
        }

        fn excludes(&self) -> bool {
            true
        }

        fn terminate(&self, pid: i32) {
            self.observer.signal("pg_terminate_backend", pid);
        }

        fn cancel(&self, pid: i32) {
            self.observer.signal("pg_cancel_backend", pid);
        }
    };
}
pub(crate) use on_postgres;
