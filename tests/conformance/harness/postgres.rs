//! What the harnesses on PostgreSQL share: the server, the observer, and SQL by hand.

use std::cell::RefCell;
use std::time::Duration;

use advisory_locking::{LockKey, LockMode, RawLockKey};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, SmallInt};
use diesel::{Connection, QueryResult, QueryableByName, RunQueryDsl, sql_query};

use crate::actor::{OUTER_LIMIT, Outcome, Raw};
use crate::stage::{Held, until};

/// The server of the tests.
pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| {
        panic!("DATABASE_URL is not set: run ./scripts/test, which starts a private server")
    })
}

#[allow(dead_code, reason = "pools are features")]
/// How long a pool tries to give a connection; less than the outer limit.
pub(crate) const POOL_LIMIT: Duration = Duration::from_secs(5);

/// Where actors connect to, and where the observer does: the same server, though perhaps by another way.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) actors: String,
    pub(crate) observer: String,
}

impl Place {
    pub(crate) fn at(url: impl Into<String>) -> Self {
        let actors = url.into();
        Self {
            observer: actors.clone(),
            actors,
        }
    }

    /// The server of the tests.
    pub(crate) fn here() -> Self {
        Self::at(url())
    }
}

/// A connection with a table of its own to write to.
pub(crate) fn connect(url: &str) -> PgConnection {
    let mut conn = PgConnection::establish(url).expect("the server accepts connections");
    prepare(&mut conn).expect("a temporary table can be made");
    conn
}

/// Written to by [`Raw::Write`]. On a standby nobody writes.
pub(crate) const TABLE: &str = "DO $$ BEGIN IF NOT pg_is_in_recovery() THEN \
     CREATE TEMPORARY TABLE IF NOT EXISTS written (number integer); END IF; END $$";

pub(crate) fn prepare(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute(TABLE)
}

/// Somebody who looks at the server's lock table.
pub(crate) struct Observer {
    conn: RefCell<PgConnection>,
    url: String,
    /// Asked for once: whoever reads the shared catalogue of databases needs room in the lock table, and it may be full.
    database: i64,
}

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
    #[allow(dead_code, reason = "not every program has a use for it")]
    pub(crate) fn new() -> Self {
        Self::at(&Place::here())
    }

    pub(crate) fn at(place: &Place) -> Self {
        let url = place.observer.clone();
        let mut conn = connect(&url);
        let database: Number = sql_query(
            "SELECT oid::int8 AS number FROM pg_database WHERE datname = current_database()",
        )
        .get_result(&mut conn)
        .expect("the database is in its catalogue");
        Self {
            conn: RefCell::new(conn),
            url,
            database: database.number.expect("a number"),
        }
    }

    /// Asks, and once more on a new connection if the server has restarted meanwhile.
    fn ask<T>(&self, ask: impl Fn(&mut PgConnection) -> QueryResult<T>) -> T {
        let mut conn = self.conn.borrow_mut();
        ask(&mut conn).unwrap_or_else(|_| {
            *conn = until(OUTER_LIMIT, || PgConnection::establish(&self.url).ok())
                .expect("the server accepts connections again");
            ask(&mut conn).expect("the observer is answered")
        })
    }

    pub(crate) fn holders(&self, key: &LockKey) -> Vec<Held> {
        let (classid, objid, objsubid) = key.raw().pg_locks_columns();
        let query = sql_query(
            "SELECT pid, mode = 'ExclusiveLock' AS exclusive, granted FROM pg_locks \
             WHERE locktype = 'advisory' \
             AND database = $4::oid AND classid = $1::oid AND objid = $2::oid AND objsubid = $3 \
             ORDER BY granted DESC, CASE WHEN granted THEN pid END, waitstart, mode, pid",
        )
        .bind::<BigInt, _>(i64::from(classid))
        .bind::<BigInt, _>(i64::from(objid))
        .bind::<SmallInt, _>(i16::try_from(objsubid).expect("1 or 2"))
        .bind::<BigInt, _>(self.database);
        let rows: Vec<LockRow> = self.ask(|conn| query.clone().load(conn));
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
        let call = format!("SELECT {function}({pid})");
        self.ask(|conn| conn.batch_execute(&call));
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
        Raw::Run(sql) => return Text::Run(sql.to_owned()),
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

fn call(function: &str, key: RawLockKey, mode: LockMode) -> String {
    let suffix = match mode {
        LockMode::Exclusive => "",
        LockMode::Shared => "_shared",
    };
    match key {
        RawLockKey::Single(number) => format!("{function}{suffix}('{number}'::int8)::int"),
        RawLockKey::Pair(first, second) => {
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
