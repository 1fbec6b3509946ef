//! A connection beside the actors, that sees and does what an administrator can.

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, QueryResult, RunQueryDsl};

use crate::actor::OUTER_LIMIT;
use crate::fixture::until;

pub(crate) struct Watch(PgConnection);

impl Watch {
    pub(crate) fn at(url: &str) -> Self {
        let conn = until(OUTER_LIMIT, || PgConnection::establish(url).ok());
        Self(conn.expect("the server accepts connections"))
    }

    pub(crate) fn run(&mut self, statements: &str) {
        self.try_run(statements).expect(statements);
    }

    pub(crate) fn try_run(&mut self, statements: &str) -> QueryResult<()> {
        self.0.batch_execute(statements)
    }

    pub(crate) fn number(&mut self, query: &str) -> i64 {
        let query = sql::<BigInt>(&format!("({query})::int8"));
        diesel::select(query).get_result(&mut self.0).unwrap()
    }

    pub(crate) fn text(&mut self, query: &str) -> String {
        let query = sql::<Text>(&format!("({query})::text"));
        diesel::select(query).get_result(&mut self.0).unwrap()
    }

    /// Ends a session, and returns when it has ended.
    pub(crate) fn terminate(&mut self, pid: i32) {
        self.run(&format!("SELECT pg_terminate_backend({pid})"));
        self.until_gone(pid);
    }

    pub(crate) fn cancel(&mut self, pid: i32) {
        self.run(&format!("SELECT pg_cancel_backend({pid})"));
    }

    pub(crate) fn is_alive(&mut self, pid: i32) -> bool {
        self.number(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
        )) > 0
    }

    #[track_caller]
    pub(crate) fn until_gone(&mut self, pid: i32) {
        until(OUTER_LIMIT, || (!self.is_alive(pid)).then_some(())).expect("the session ends");
    }

    /// Blocks until a session runs, or has run, a statement whose text is like this.
    #[track_caller]
    pub(crate) fn until_it_runs(&mut self, pid: i32, like: &str) {
        let runs = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '{like}'"
        );
        until(OUTER_LIMIT, || (self.number(&runs) > 0).then_some(()))
            .unwrap_or_else(|| panic!("session {pid} never ran {like}"));
    }
}

/// A name that no other test has, and no other run on the same server.
pub(crate) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("real_faults_{}_{number}", std::process::id())
}

/// Something on the server that is dropped with its value: a database, a role, a table.
pub(crate) struct Throwaway {
    pub(crate) name: String,
    url: String,
    drop: String,
}

impl Throwaway {
    pub(crate) fn create(url: &str, what: &str, with: &str) -> Self {
        let name = fresh_name();
        Watch::at(url).run(&format!("CREATE {what} {name} {with}"));
        let force = if what == "DATABASE" {
            "WITH (FORCE)"
        } else {
            ""
        };
        Self {
            drop: format!("DROP {what} {name} {force}"),
            name,
            url: url.to_owned(),
        }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let _ = Watch::at(&self.url).try_run(&self.drop);
    }
}

/// The same server with other parameters; of two values, the last counts.
pub(crate) fn with_parameters(url: &str, parameters: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{parameters}")
}
