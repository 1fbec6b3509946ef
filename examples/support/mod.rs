//! Shared by the examples of the guide: a temporary database on PostgreSQL or SQLite, and checks.
#![allow(
    dead_code,
    missing_docs,
    clippy::exhaustive_enums,
    clippy::print_stdout,
    reason = "no example uses all items, and Diesel's macro generates undocumented code"
)]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::LockKey;
use advisory_locking::session::{DelegateLockSession, LockSession};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Bool;

/// Result of `main`. An error ends the program with a non-zero exit status.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// PostgreSQL in production, SQLite in tests.
#[derive(diesel::MultiConnection)]
pub(crate) enum AnyConnection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl DelegateLockSession for AnyConnection {
    fn session(&mut self) -> &mut dyn LockSession {
        match self {
            Self::Postgres(conn) => conn,
            Self::Sqlite(conn) => conn,
        }
    }
}

/// Prints a statement that is true. Fails if it is false.
pub(crate) fn check(is_true: bool, statement: &str) -> Outcome {
    if is_true {
        println!("ok: {statement}");
        Ok(())
    } else {
        Err(format!("not true: {statement}").into())
    }
}

/// A temporary schema on the server in `DATABASE_URL`, or a temporary SQLite file.
///
/// Deleted on drop.
pub(crate) enum Database {
    Postgres { url: String, schema: String },
    Sqlite { file: PathBuf },
}

impl Database {
    /// Creates the database and runs `statements` on it.
    pub(crate) fn create(example: &str, statements: &str) -> Outcome<Self> {
        let name = format!("advisory_locking_{example}_{}", process::id());
        let url = env::var("DATABASE_URL").unwrap_or_default();
        let database = if url.starts_with("postgres") {
            Self::Postgres { url, schema: name }
        } else {
            let file = env::temp_dir().join(name).with_extension("sqlite");
            Self::Sqlite { file }
        };
        let mut conn = database.connect()?;
        if let Self::Postgres { schema, .. } = &database {
            println!("on PostgreSQL");
            conn.batch_execute(&format!("CREATE SCHEMA {schema}"))?;
        } else {
            println!("on SQLite: DATABASE_URL is not a PostgreSQL URL");
        }
        conn.batch_execute(statements)?;
        Ok(database)
    }

    pub(crate) fn connect(&self) -> ConnectionResult<AnyConnection> {
        let setting_failed = ConnectionError::CouldntSetupConfiguration;
        match self {
            // Not with SET: behind a transaction pooler, it would change a session that other
            // clients use later.
            Self::Postgres { url, schema } => {
                let separator = if url.contains('?') { '&' } else { '?' };
                let url = format!("{url}{separator}options=-csearch_path%3D{schema}");
                PgConnection::establish(&url).map(AnyConnection::Postgres)
            }
            Self::Sqlite { file } => {
                let mut conn = SqliteConnection::establish(&file.to_string_lossy())?;
                conn.batch_execute("PRAGMA busy_timeout = 5000")
                    .map_err(setting_failed)?;
                Ok(AnyConnection::Sqlite(conn))
            }
        }
    }

    /// Returns true if a lock excludes other sessions.
    pub(crate) const fn excludes(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// Blocks until a session waits for the lock on the server. A polling session is not seen.
    pub(crate) fn wait_for_waiter(&self, key: impl Into<LockKey>) -> Outcome {
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = Bool)]
            waits: bool,
        }

        let condition = key.into().pg_locks().sql_condition();
        let query = format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE {condition} AND NOT granted) AS waits"
        );
        let mut conn = self.connect()?;
        let began = Instant::now();
        loop {
            let row: Row = diesel::sql_query(&query).get_result(match &mut conn {
                AnyConnection::Postgres(conn) => conn,
                AnyConnection::Sqlite(_) => return Err("SQLite has no locks".into()),
            })?;
            if row.waits {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err("no session waits for the lock".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let removed: Outcome = match self {
            Self::Postgres { schema, .. } => {
                let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
                self.connect()
                    .map_err(Box::from)
                    .and_then(|mut conn| conn.batch_execute(&drop).map_err(Box::from))
            }
            Self::Sqlite { file } => std::fs::remove_file(file).map_err(Box::from),
        };
        if let Err(error) = removed {
            println!("cannot delete the database: {error}");
        }
    }
}
