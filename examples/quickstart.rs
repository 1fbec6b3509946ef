//! A webhook that receives one event twice at the same time.
//!
//! Each delivery looks for the row and creates it if it does not exist. `SELECT FOR UPDATE` cannot
//! lock a row that does not exist, and the table has no unique constraint. With an advisory lock
//! the second delivery waits, looks, and finds the row of the first.
//!
//! ```text
//! scripts/quickstart                             SQLite: no server, no mutual exclusion
//! scripts/postgres run -- scripts/quickstart     PostgreSQL: one creates, the other finds
//! ```
#![expect(
    missing_docs,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "code that Diesel's macros generate"
)]
#![expect(clippy::print_stdout, reason = "the program prints each event")]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::session::{DelegateLockSession, LockSession};
use advisory_locking::{AdvisoryLocking, LockOptions};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;

/// PostgreSQL in production, SQLite in tests.
#[derive(diesel::MultiConnection)]
enum AnyConnection {
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

diesel::table! {
    pull_requests (id) {
        id -> BigInt,
        title -> Text,
    }
}

/// The payload of the event.
struct PullRequestOpened {
    id: i64,
    title: &'static str,
}

#[derive(Debug, Eq, PartialEq)]
enum Handled {
    Created,
    Found,
}

/// Handles the event. This is the part that belongs in an application.
fn on_pull_request_opened(
    conn: &mut AnyConnection,
    event: &PullRequestOpened,
    output: &Output,
) -> QueryResult<Handled> {
    let protected = conn.capabilities().provides_mutual_exclusion();
    let wait = LockOptions::wait_up_to(Duration::from_secs(10));
    output.print("requests the lock");
    conn.with_advisory_xact_lock(("pull-request", event.id), wait, |conn| {
        output.print(if protected {
            "holds the lock"
        } else {
            "continues without a lock"
        });
        let there: i64 = pull_requests::table
            .filter(pull_requests::id.eq(event.id))
            .count()
            .get_result(conn)?;
        if there > 0 {
            output.print("finds the row");
            return Ok(Handled::Found);
        }
        output.print("finds no row");
        thread::sleep(LOOK_TO_CREATE);
        diesel::insert_into(pull_requests::table)
            .values((
                pull_requests::id.eq(event.id),
                pull_requests::title.eq(event.title),
            ))
            .execute(conn)?;
        output.print("creates the row");
        Ok(Handled::Created)
    })
}

/// Work between the look and the insert, long enough that two unprotected deliveries overlap.
const LOOK_TO_CREATE: Duration = Duration::from_millis(100);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // Prints the warning that SQLite has no locks.
    tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .init();

    let database = DemoDatabase::new()?;
    println!("database: {database}");
    let event = PullRequestOpened {
        id: 1234,
        title: "Lock before you look",
    };
    let outcomes = deliver_twice(&database, &event)?;

    let rows: i64 = pull_requests::table
        .count()
        .get_result(&mut database.connect()?)?;
    println!("rows: {rows}");
    Ok(summary(&database, &outcomes, rows))
}

/// Handles the event in two threads at the same time, each with its own connection.
fn deliver_twice(
    database: &DemoDatabase,
    event: &PullRequestOpened,
) -> ConnectionResult<Vec<QueryResult<Handled>>> {
    // Connect before the threads start, so that an error leaves no thread at the barrier.
    let deliveries = [
        ("delivery 1", database.connect()?),
        ("delivery 2", database.connect()?),
    ];
    let both_ready = Barrier::new(deliveries.len());
    let began = Instant::now();
    Ok(thread::scope(|scope| {
        let threads = deliveries.map(|(delivery, mut conn)| {
            let both_ready = &both_ready;
            scope.spawn(move || {
                let output = Output { began, delivery };
                both_ready.wait();
                let handled = on_pull_request_opened(&mut conn, event, &output);
                match &handled {
                    Ok(handled) => output.print(&format!("is done: {handled:?}")),
                    Err(error) => output.print(&format!("failed: {error}")),
                }
                handled
            })
        });
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    }))
}

/// Prints the result. On PostgreSQL there must be one row and one delivery that created it.
fn summary(database: &DemoDatabase, outcomes: &[QueryResult<Handled>], rows: i64) -> ExitCode {
    let count = |wanted| {
        let is_wanted =
            |outcome: &&QueryResult<Handled>| matches!(outcome, Ok(got) if *got == wanted);
        outcomes.iter().filter(is_wanted).count()
    };
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let once = rows == 1 && count(Handled::Created) == 1 && count(Handled::Found) == 1;
    match database {
        DemoDatabase::Postgres { .. } if once => {
            println!("PostgreSQL: created once; the other delivery waited and found the row");
            ExitCode::SUCCESS
        }
        DemoDatabase::Postgres { .. } => {
            println!("PostgreSQL: FAILED: not created once and found once");
            ExitCode::FAILURE
        }
        DemoDatabase::Sqlite { .. } if rows == 0 => {
            println!("SQLite: nothing was written");
            ExitCode::FAILURE
        }
        // In SQLite, two transactions that have read cannot both write: the second fails at once,
        // without waiting for `busy_timeout`. See https://www.sqlite.org/rescode.html#busy.
        DemoDatabase::Sqlite { .. } => {
            println!("SQLite has no advisory locks: no delivery waited for the other.");
            if failed > 0 {
                println!("Both looked before the first write; SQLite rejected the second write.");
            } else if once {
                println!("This time one delivery began after the other had ended.");
            } else {
                println!("Both deliveries created the row.");
            }
            println!("To see the lock: scripts/postgres run -- scripts/quickstart");
            ExitCode::SUCCESS
        }
    }
}

/// Prints the events of one delivery, with the time since the start.
struct Output {
    began: Instant,
    delivery: &'static str,
}

impl Output {
    fn print(&self, event: &str) {
        let at = self.began.elapsed().as_secs_f64() * 1e3;
        println!("{at:>6.1} ms  {}  {event}", self.delivery);
    }
}

/// A temporary schema on the server, or a temporary SQLite file. Deleted on drop.
enum DemoDatabase {
    Postgres { url: String, schema: String },
    Sqlite { file: PathBuf },
}

impl DemoDatabase {
    fn new() -> Result<Self, Box<dyn Error>> {
        let name = format!("advisory_locking_quickstart_{}", process::id());
        let url = env::var("DATABASE_URL").unwrap_or_default();
        let database = if url.starts_with("postgres") {
            Self::Postgres { url, schema: name }
        } else {
            let file = env::temp_dir().join(name).with_extension("sqlite");
            Self::Sqlite { file }
        };
        let mut conn = database.connect()?;
        if let Self::Postgres { schema, .. } = &database {
            conn.batch_execute(&format!("CREATE SCHEMA {schema}"))?;
        }
        // Without a unique constraint, so that a second row would be seen.
        conn.batch_execute("CREATE TABLE pull_requests (id BIGINT NOT NULL, title TEXT NOT NULL)")?;
        Ok(database)
    }

    fn connect(&self) -> ConnectionResult<AnyConnection> {
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
                // Without a timeout, the second of two writers fails at once.
                conn.batch_execute("PRAGMA busy_timeout = 5000")
                    .map_err(setting_failed)?;
                Ok(AnyConnection::Sqlite(conn))
            }
        }
    }
}

impl std::fmt::Display for DemoDatabase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres { schema, .. } => write!(formatter, "PostgreSQL, schema {schema}"),
            Self::Sqlite { file } => write!(
                formatter,
                "SQLite, {} (DATABASE_URL is not a PostgreSQL URL)",
                file.display()
            ),
        }
    }
}

impl Drop for DemoDatabase {
    fn drop(&mut self) {
        let removed: Result<(), Box<dyn Error>> = match self {
            Self::Postgres { schema, .. } => {
                let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
                self.connect()
                    .map_err(Box::from)
                    .and_then(|mut conn| conn.batch_execute(&drop).map_err(Box::from))
            }
            Self::Sqlite { file } => std::fs::remove_file(file).map_err(Box::from),
        };
        if let Err(error) = removed {
            println!("cannot delete {self}: {error}");
        }
    }
}
