//! A webhook whose sender delivers one event twice, at the same moment.
//!
//! Each delivery looks for the row and creates it if it is not there. There is no row to lock yet, and no unique constraint whose
//! error one would have to swallow: an advisory lock makes the second delivery wait, look, and find what the first has written.
//!
//! ```text
//! scripts/quickstart                             SQLite, without a server: nothing is excluded
//! scripts/postgres run -- scripts/quickstart     PostgreSQL: one creates, the other finds
//! ```
#![expect(
    missing_docs,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "of what Diesel's macros write"
)]
#![expect(
    clippy::print_stdout,
    reason = "the program shows what happens, and in which order"
)]

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

/// PostgreSQL in production, SQLite in tests: one source for both.
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

/// What the sender tells us.
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
    log: &Log,
) -> QueryResult<Handled> {
    let protected = conn.capabilities().provides_mutual_exclusion();
    let wait = LockOptions::wait_up_to(Duration::from_secs(10));
    log.say("asks for the lock");
    conn.with_advisory_xact_lock(("pull-request", event.id), wait, |conn| {
        log.say(if protected {
            "has the lock"
        } else {
            "goes on without a lock"
        });
        let there: i64 = pull_requests::table
            .filter(pull_requests::id.eq(event.id))
            .count()
            .get_result(conn)?;
        if there > 0 {
            log.say("looks: the row is there");
            return Ok(Handled::Found);
        }
        log.say("looks: no row");
        thread::sleep(LOOK_TO_CREATE);
        diesel::insert_into(pull_requests::table)
            .values((
                pull_requests::id.eq(event.id),
                pull_requests::title.eq(event.title),
            ))
            .execute(conn)?;
        log.say("creates the row");
        Ok(Handled::Created)
    })
}

/// As if something else were to be asked first: long enough for two unprotected deliveries to meet.
const LOOK_TO_CREATE: Duration = Duration::from_millis(100);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // The warning that SQLite has no locks goes to standard output with the rest.
    tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .init();

    let place = Place::new()?;
    println!("database: {place}");
    let event = PullRequestOpened {
        id: 1234,
        title: "Lock before you look",
    };
    let outcomes = deliver_twice(&place, &event)?;

    let rows: i64 = pull_requests::table
        .count()
        .get_result(&mut place.connect()?)?;
    println!("rows: {rows}");
    Ok(verdict(&place, &outcomes, rows))
}

/// Two threads, each with its own connection, that handle the event at the same moment.
fn deliver_twice(
    place: &Place,
    event: &PullRequestOpened,
) -> ConnectionResult<Vec<QueryResult<Handled>>> {
    // Before the threads: a connection that fails must not leave the other thread at the barrier.
    let deliveries = [
        ("delivery 1", place.connect()?),
        ("delivery 2", place.connect()?),
    ];
    let both_ready = Barrier::new(deliveries.len());
    let began = Instant::now();
    Ok(thread::scope(|scope| {
        let threads = deliveries.map(|(who, mut conn)| {
            let both_ready = &both_ready;
            scope.spawn(move || {
                let log = Log { began, who };
                both_ready.wait();
                let handled = on_pull_request_opened(&mut conn, event, &log);
                match &handled {
                    Ok(handled) => log.say(&format!("is done: {handled:?}")),
                    Err(error) => log.say(&format!("failed: {error}")),
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

/// On PostgreSQL, anything but one row and one creator is a failure.
fn verdict(place: &Place, outcomes: &[QueryResult<Handled>], rows: i64) -> ExitCode {
    let count = |wanted| {
        let is_wanted =
            |outcome: &&QueryResult<Handled>| matches!(outcome, Ok(got) if *got == wanted);
        outcomes.iter().filter(is_wanted).count()
    };
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let once = rows == 1 && count(Handled::Created) == 1 && count(Handled::Found) == 1;
    match place {
        Place::Postgres { .. } if once => {
            println!("PostgreSQL: written once; the other delivery waited, looked and found it");
            ExitCode::SUCCESS
        }
        Place::Postgres { .. } => {
            println!("PostgreSQL: the lock did not do its work");
            ExitCode::FAILURE
        }
        Place::Sqlite { .. } if rows == 0 => {
            println!("SQLite: nothing was written");
            ExitCode::FAILURE
        }
        // Two transactions that have both read cannot both write in SQLite: the second is refused at once, whatever its busy
        // time-out. Nobody was made to wait, so one of the two fails, unless it came when the other was done.
        Place::Sqlite { .. } => {
            println!("SQLite has no advisory locks: nobody waited for anybody.");
            if failed > 0 {
                println!(
                    "Both looked before either had written; SQLite itself refused the second write."
                );
            } else if once {
                println!("This time one happened to come when the other was done.");
            } else {
                println!("The row was written more than once.");
            }
            println!("For the lock itself: scripts/postgres run -- scripts/quickstart");
            ExitCode::SUCCESS
        }
    }
}

/// What one delivery does, with the time since both began.
struct Log {
    began: Instant,
    who: &'static str,
}

impl Log {
    fn say(&self, what: &str) {
        let at = self.began.elapsed();
        println!("{:>6.1} ms  {}  {what}", at.as_secs_f64() * 1e3, self.who);
    }
}

/// Where the table is: a schema of its own on a server, or a file of its own. Gone when dropped.
enum Place {
    Postgres { url: String, schema: String },
    Sqlite { file: PathBuf },
}

impl Place {
    fn new() -> Result<Self, Box<dyn Error>> {
        let name = format!("advisory_locking_quickstart_{}", process::id());
        let url = env::var("DATABASE_URL").unwrap_or_default();
        let place = if url.starts_with("postgres") {
            Self::Postgres { url, schema: name }
        } else {
            let file = env::temp_dir().join(name).with_extension("sqlite");
            Self::Sqlite { file }
        };
        let mut conn = place.connect()?;
        if let Self::Postgres { schema, .. } = &place {
            conn.batch_execute(&format!("CREATE SCHEMA {schema}"))?;
        }
        // No unique constraint, so that a second row would be seen.
        conn.batch_execute("CREATE TABLE pull_requests (id BIGINT NOT NULL, title TEXT NOT NULL)")?;
        Ok(place)
    }

    fn connect(&self) -> ConnectionResult<AnyConnection> {
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
                // Without it, the second of two writers fails at once, and the second of two commits too.
                conn.batch_execute("PRAGMA busy_timeout = 5000")
                    .map_err(setting_failed)?;
                Ok(AnyConnection::Sqlite(conn))
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres { schema, .. } => write!(formatter, "PostgreSQL, schema {schema}"),
            Self::Sqlite { file } => write!(
                formatter,
                "SQLite, {} (DATABASE_URL names no PostgreSQL)",
                file.display()
            ),
        }
    }
}

impl Drop for Place {
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
            println!("not removed: {self}: {error}");
        }
    }
}
