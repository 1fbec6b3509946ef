//! Shared parts of the harnesses on PostgreSQL: the server's address, the observer, plain SQL.

use std::cell::RefCell;
use std::time::Duration;

use advisory_locking::{LockKey, LockMode, RawLockKey};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, SmallInt};
use diesel::{Connection, QueryResult, QueryableByName, RunQueryDsl, sql_query};

use crate::actor::{OUTER_LIMIT, Outcome, SqlCommand};
use crate::fixture::{LockEntry, until};

/// Returns the address of the test server.
pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| {
        panic!("DATABASE_URL is not set: run ./scripts/test, which starts a private server")
    })
}

/// Checkout timeout of a pool; less than the outer limit.
#[allow(dead_code, reason = "pools are features")]
pub(crate) const POOL_LIMIT: Duration = Duration::from_secs(5);

/// Addresses of one server for the actors and for the observer. The actors may use a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) actors: String,
    pub(crate) observer: String,
}

impl Endpoint {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        let actors = url.into();
        Self {
            observer: actors.clone(),
            actors,
        }
    }
}

impl Default for Endpoint {
    /// The test server.
    fn default() -> Self {
        Self::new(url())
    }
}

/// Opens a connection with a temporary table.
pub(crate) fn connect(url: &str) -> PgConnection {
    let mut conn = PgConnection::establish(url).expect("the server accepts connections");
    prepare(&mut conn).expect("a temporary table can be made");
    conn
}

/// Creates the table of [`SqlCommand::Write`], except on a standby, which rejects it.
pub(crate) const TABLE: &str = "DO $$ BEGIN IF NOT pg_is_in_recovery() THEN \
     CREATE TEMPORARY TABLE IF NOT EXISTS written (number integer); END IF; END $$";

pub(crate) fn prepare(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute(TABLE)
}

/// A connection that reads the server's lock table.
pub(crate) struct Observer {
    conn: RefCell<PgConnection>,
    url: String,
    /// Read once: a later read of `pg_database` needs an entry in the lock table, which one case
    /// fills.
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
    #[allow(dead_code, reason = "not every test program uses it")]
    pub(crate) fn new() -> Self {
        Self::at(&Endpoint::default())
    }

    pub(crate) fn at(endpoint: &Endpoint) -> Self {
        let url = endpoint.observer.clone();
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

    /// Runs a query, and once more on a new connection if the server has restarted.
    fn query<T>(&self, query: impl Fn(&mut PgConnection) -> QueryResult<T>) -> T {
        let mut conn = self.conn.borrow_mut();
        query(&mut conn).unwrap_or_else(|_| {
            *conn = until(OUTER_LIMIT, || PgConnection::establish(&self.url).ok())
                .expect("the server accepts connections again");
            query(&mut conn).expect("the new connection works")
        })
    }

    pub(crate) fn lock_entries(&self, key: &LockKey) -> Vec<LockEntry> {
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
        let rows: Vec<LockRow> = self.query(|conn| query.clone().load(conn));
        let mode = |exclusive| {
            if exclusive {
                LockMode::Exclusive
            } else {
                LockMode::Shared
            }
        };
        rows.into_iter()
            .map(|row| LockEntry {
                pid: row.pid,
                mode: mode(row.exclusive),
                granted: row.granted,
            })
            .collect()
    }

    /// Calls a signal function with a session's process id.
    pub(crate) fn signal(&self, function: &str, pid: i32) {
        let call = format!("SELECT {function}({pid})");
        self.query(|conn| conn.batch_execute(&call));
    }
}

/// Statements, or a query that returns a number.
pub(crate) enum SqlText {
    Run(String),
    Query(String),
}

/// Returns the SQL of a command.
pub(crate) fn sql_text(command: SqlCommand) -> SqlText {
    let number = match command {
        SqlCommand::Pid => "pg_backend_pid()".to_owned(),
        SqlCommand::TryLock(key, mode) => call("pg_try_advisory_lock", key, mode),
        SqlCommand::Unlock(key, mode) => call("pg_advisory_unlock", key, mode),
        SqlCommand::Count => "(SELECT count(*) FROM written)".to_owned(),
        SqlCommand::Settings => "(SELECT sum(setting::int8) FROM pg_settings \
             WHERE name IN ('lock_timeout', 'statement_timeout'))"
            .to_owned(),
        SqlCommand::UnlockAll => return SqlText::Run("SELECT pg_advisory_unlock_all()".to_owned()),
        SqlCommand::Begin => return SqlText::Run("BEGIN".to_owned()),
        SqlCommand::Commit => return SqlText::Run("COMMIT".to_owned()),
        SqlCommand::Rollback => return SqlText::Run("ROLLBACK".to_owned()),
        SqlCommand::Savepoint(name) => return SqlText::Run(format!("SAVEPOINT {name}")),
        SqlCommand::RollbackTo(name) => {
            return SqlText::Run(format!("ROLLBACK TO SAVEPOINT {name}"));
        }
        SqlCommand::Fail => return SqlText::Run("SELECT 1/0".to_owned()),
        SqlCommand::Run(sql) => return SqlText::Run(sql.to_owned()),
        SqlCommand::Write => return SqlText::Run("INSERT INTO written VALUES (1)".to_owned()),
        SqlCommand::SetSettings => {
            return SqlText::Run(
                "SET lock_timeout = '7s'; SET statement_timeout = '90s'".to_owned(),
            );
        }
    };
    SqlText::Query(format!("SELECT ({number})::int8 AS number"))
}

pub(crate) fn run_sql(conn: &mut PgConnection, command: SqlCommand) -> Outcome {
    match sql_text(command) {
        SqlText::Run(sql) => conn
            .batch_execute(&sql)
            .map_or(Outcome::ClientFailed, |()| Outcome::Done),
        SqlText::Query(sql) => sql_query(sql)
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

/// The methods of [`Harness`](crate::fixture::Harness) that all clients of PostgreSQL share.
macro_rules! on_postgres {
    () => {
        fn lock_entries(&self, key: &advisory_locking::LockKey) -> Vec<crate::fixture::LockEntry> {
            self.observer.lock_entries(key)
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
