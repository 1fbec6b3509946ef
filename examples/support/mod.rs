//! What the recipes share: a database of their own on PostgreSQL or SQLite, and a check that ends the program.
#![allow(
    dead_code,
    missing_docs,
    clippy::exhaustive_enums,
    clippy::print_stdout,
    reason = "not every recipe uses everything, and Diesel's macro writes undocumented code"
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
use diesel::sql_types::{BigInt, Bool};

/// What every `main` returns: an error ends the program with a status that is not zero.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// PostgreSQL in production, SQLite in tests: one source for both.
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

/// The recipe's claim about itself.
pub(crate) fn check(holds: bool, what: &str) -> Outcome {
    if holds {
        println!("as it should be: {what}");
        Ok(())
    } else {
        Err(format!("not so: {what}").into())
    }
}

/// A schema of its own on the server in `DATABASE_URL`, or a SQLite file of its own. Gone when dropped.
pub(crate) enum Database {
    Postgres { url: String, schema: String },
    Sqlite { file: PathBuf },
}

impl Database {
    /// Made with these statements.
    pub(crate) fn create(recipe: &str, statements: &str) -> Outcome<Self> {
        let name = format!("advisory_locking_{recipe}_{}", process::id());
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
            println!("on SQLite: DATABASE_URL names no PostgreSQL");
        }
        conn.batch_execute(statements)?;
        Ok(database)
    }

    pub(crate) fn connect(&self) -> ConnectionResult<AnyConnection> {
        let setting_failed = ConnectionError::CouldntSetupConfiguration;
        match self {
            Self::Postgres { url, schema } => {
                let mut conn = PgConnection::establish(url)?;
                conn.batch_execute(&format!("SET search_path TO {schema}"))
                    .map_err(setting_failed)?;
                Ok(AnyConnection::Postgres(conn))
            }
            Self::Sqlite { file } => {
                let mut conn = SqliteConnection::establish(&file.to_string_lossy())?;
                conn.batch_execute("PRAGMA busy_timeout = 5000")
                    .map_err(setting_failed)?;
                Ok(AnyConnection::Sqlite(conn))
            }
        }
    }

    /// Whether a lock keeps anybody out here.
    pub(crate) const fn excludes(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// Waits until a session queues for the lock on the server. One that polls is not seen there.
    pub(crate) fn until_somebody_queues(&self, key: impl Into<LockKey>) -> Outcome {
        #[derive(diesel::QueryableByName)]
        struct Queued {
            #[diesel(sql_type = Bool)]
            queued: bool,
        }

        let (high, low, space) = key.into().raw().pg_locks_columns();
        let mut conn = self.connect()?;
        let began = Instant::now();
        loop {
            let found: Queued = diesel::sql_query(
                "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                 AND classid::bigint = $1 AND objid::bigint = $2 AND objsubid::bigint = $3 AND database = \
                 (SELECT oid FROM pg_database WHERE datname = current_database())) AS queued",
            )
            .bind::<BigInt, _>(i64::from(high))
            .bind::<BigInt, _>(i64::from(low))
            .bind::<BigInt, _>(i64::from(space))
            .get_result(match &mut conn {
                AnyConnection::Postgres(conn) => conn,
                AnyConnection::Sqlite(_) => return Err("SQLite has no queue".into()),
            })?;
            if found.queued {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err("nobody queued for the lock".into());
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
            println!("not removed: {error}");
        }
    }
}
