//! Shared parts of the harnesses on PostgreSQL: the server's address, the observer, plain SQL.

use std::any::Any;
use std::cell::RefCell;
use std::time::Duration;

use advisory_locking::{LockKey, LockMode};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Nullable};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};
use testkit::observer::{Observe, lock_call};
use testkit::server::connect_to;
pub(crate) use testkit::server::url;

use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::fixture::{Harness, LockEntry, LockTable};

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

/// The number of a session's writes, a [setting]. A rollback restores it, also one to a savepoint.
/// A temporary table would change the catalogues.
///
/// [setting]: https://www.postgresql.org/docs/current/sql-set.html
const WRITTEN: &str = "COALESCE(NULLIF(current_setting('conformance.written', true), ''), '0')";

/// An observer that reconnects after a restart of the server.
pub(crate) struct Observer {
    conn: RefCell<PgConnection>,
    url: String,
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
        let conn = RefCell::new(connect_to(&url));
        Self { conn, url }
    }

    /// Runs a query, and once more on a new connection if the first one is broken.
    fn query<T>(&self, query: impl Fn(&mut PgConnection) -> QueryResult<T>) -> T {
        let mut conn = self.conn.borrow_mut();
        query(&mut conn).unwrap_or_else(|_| {
            *conn = connect_to(&self.url);
            query(&mut conn).expect("the new connection works")
        })
    }

    /// Returns `true` if `pg_stat_activity` shows the session in this state.
    fn matches(&self, pid: i32, condition: &str) -> bool {
        self.query(|conn| Ok(conn.session_matches(pid, condition)))
    }

    fn signal(&self, function: &str, pid: i32) {
        let call = format!("SELECT {function}({pid})");
        self.query(|conn| conn.try_run(&call));
    }
}

impl LockTable for Observer {
    fn lock_entries(&self, key: &LockKey) -> Vec<LockEntry> {
        let entries = self.query(|conn| conn.try_lock_entries(key));
        let entries = entries.into_iter().map(|entry| LockEntry {
            pid: i32::try_from(entry.pid).expect("a process id"),
            mode: entry.mode,
            granted: entry.granted,
        });
        entries.collect()
    }

    fn terminate(&self, pid: i32) {
        self.signal("pg_terminate_backend", pid);
    }

    fn cancel(&self, pid: i32) {
        self.signal("pg_cancel_backend", pid);
    }

    fn has_rolled_back(&self, pid: i32) -> bool {
        self.matches(
            pid,
            "query = 'ROLLBACK' AND state = 'idle' AND backend_xmin IS NULL",
        )
    }

    fn has_ended_snapshot(&self, pid: i32) -> bool {
        self.matches(
            pid,
            "query = 'SELECT' AND state = 'idle in transaction' AND backend_xmin IS NULL",
        )
    }

    fn reserve_extreme_keys(&self) -> Box<dyn Any> {
        let mut conn = connect_to(&self.url);
        let key = LockKey::from("conformance/extreme-keys").raw();
        let lock = lock_call("pg_advisory_lock", key, LockMode::Exclusive);
        conn.run(&format!("SELECT {lock}"));
        Box::new(conn)
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
        SqlCommand::TryLock(key, mode) => {
            format!("{}::int", lock_call("pg_try_advisory_lock", key, mode))
        }
        SqlCommand::Unlock(key, mode) => {
            format!("{}::int", lock_call("pg_advisory_unlock", key, mode))
        }
        SqlCommand::Count => WRITTEN.to_owned(),
        SqlCommand::Settings => "(SELECT sum(setting::int8) FROM pg_settings \
             WHERE name IN ('lock_timeout', 'statement_timeout'))"
            .to_owned(),
        SqlCommand::UnlockAll => return SqlText::Run("SELECT pg_advisory_unlock_all()".to_owned()),
        SqlCommand::DiscardAll => return SqlText::Run("DISCARD ALL".to_owned()),
        SqlCommand::DeallocateAll => return SqlText::Run("DEALLOCATE ALL".to_owned()),
        SqlCommand::Begin => return SqlText::Run("BEGIN".to_owned()),
        SqlCommand::Commit => return SqlText::Run("COMMIT".to_owned()),
        SqlCommand::Rollback => return SqlText::Run("ROLLBACK".to_owned()),
        SqlCommand::Savepoint(name) => return SqlText::Run(format!("SAVEPOINT {name}")),
        SqlCommand::RollbackTo(name) => {
            return SqlText::Run(format!("ROLLBACK TO SAVEPOINT {name}"));
        }
        SqlCommand::Fail => return SqlText::Run("SELECT 1/0".to_owned()),
        SqlCommand::Run(sql) => return SqlText::Run(sql.to_owned()),
        SqlCommand::Write => {
            let next = format!("({WRITTEN}::int8 + 1)::text");
            // As with a row, the transaction gets an id.
            return SqlText::Run(format!(
                "SELECT set_config('conformance.written', {next}, false), pg_current_xact_id()"
            ));
        }
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

/// An adapter for PostgreSQL: the function of its actors, which gets the server's address.
#[derive(Clone, Copy)]
pub(crate) enum Adapter {
    Blocking(fn(&str, &ActorChannel)),
    /// The client cannot wait for a rollback while it unwinds.
    #[allow(dead_code, reason = "async clients are features")]
    Async(fn(&str, &ActorChannel)),
    /// The client queues a rollback while it unwinds.
    #[allow(dead_code, reason = "async clients are features")]
    AsyncWithRollback(fn(&str, &ActorChannel)),
}

impl Adapter {
    pub(crate) fn actor(self, url: String) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        let (Self::Blocking(run) | Self::Async(run) | Self::AsyncWithRollback(run)) = self;
        Box::new(move |channel| run(&url, channel))
    }

    pub(crate) const fn survives_panics(self) -> bool {
        matches!(self, Self::Blocking(_) | Self::AsyncWithRollback(_))
    }

    pub(crate) fn on(self, endpoint: &Endpoint) -> OnPostgres {
        OnPostgres {
            adapter: self,
            url: endpoint.actors.clone(),
            observer: Observer::at(endpoint),
            fails_on_lost_statements: true,
            ends_raw_transactions: false,
        }
    }

    pub(crate) fn on_test_server(self) -> OnPostgres {
        self.on(&Endpoint::default())
    }
}

pub(crate) struct OnPostgres {
    adapter: Adapter,
    url: String,
    observer: Observer,
    fails_on_lost_statements: bool,
    ends_raw_transactions: bool,
}

impl OnPostgres {
    /// A client that sends each lock statement unprepared, or prepares a lost one again.
    #[allow(dead_code, reason = "not every test program has such a client")]
    pub(crate) fn survives_lost_statements(self) -> Self {
        Self {
            fails_on_lost_statements: false,
            ..self
        }
    }

    /// A pool that closes a connection in a transaction that plain SQL began.
    #[allow(dead_code, reason = "not every test program has such a pool")]
    pub(crate) fn ends_raw_transactions(self) -> Self {
        Self {
            ends_raw_transactions: true,
            ..self
        }
    }
}

impl Harness for OnPostgres {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        self.adapter.actor(self.url.clone())
    }

    fn lock_table(&self) -> Option<&dyn LockTable> {
        Some(&self.observer)
    }

    fn survives_panics(&self) -> bool {
        self.adapter.survives_panics()
    }

    fn ends_raw_transactions(&self) -> bool {
        self.ends_raw_transactions
    }

    fn fails_on_lost_statements(&self) -> bool {
        self.fails_on_lost_statements
    }
}
