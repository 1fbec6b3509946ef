//! Features of rusqlite only: `Transaction`, `Savepoint` and its error type.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions, OnMissingLock};
use rusqlite::{Connection, Error};

const QUIET: LockOptions = LockOptions::no_wait().on_missing_lock(OnMissingLock::Ignore);

fn connect() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE written (number INTEGER)")
        .unwrap();
    conn
}

fn count(conn: &Connection) -> i64 {
    conn.query_row("SELECT count(*) FROM written", [], |row| row.get(0))
        .unwrap()
}

fn write(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("INSERT INTO written VALUES (1)", []).map(drop)
}

fn kind_of(ended: rusqlite::Result<()>) -> Option<LockErrorKind> {
    let error = ended.unwrap_err();
    LockError::find(&error).map(LockError::kind)
}

#[test]
fn a_transaction_acquires_transaction_level_locks_only() {
    let mut conn = connect();
    let mut transaction = conn.transaction().unwrap();
    transaction
        .acquire_advisory_xact_lock("key", QUIET)
        .unwrap();
    let refused = transaction.acquire_advisory_lock("key", QUIET).unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::InTransaction);
    let hint = "use with_advisory_xact_lock";
    assert!(refused.to_string().contains(hint), "{refused}");
    write(&transaction).unwrap();
    transaction.commit().unwrap();
    assert_eq!(count(&conn), 1);
    let refused = conn.acquire_advisory_xact_lock("key", QUIET).unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::NotInTransaction);
}

#[test]
fn a_savepoint_is_inside_a_transaction() {
    let mut conn = connect();
    let mut savepoint = conn.savepoint().unwrap();
    assert!(
        savepoint
            .try_acquire_advisory_xact_lock("key", QUIET)
            .unwrap()
    );
    write(&savepoint).unwrap();
    savepoint.commit().unwrap();
    assert_eq!(count(&conn), 1);
}

/// The inner scope is a savepoint. It is rolled back alone, or with the outer transaction.
#[test]
fn a_scope_in_a_transaction_is_a_savepoint() {
    let mut conn = connect();
    let mut transaction = conn.transaction().unwrap();
    write(&transaction).unwrap();
    let failed = transaction.with_advisory_xact_lock("key", QUIET, |conn| {
        write(conn)?;
        Err::<(), _>(Error::InvalidQuery)
    });
    assert_eq!(failed, Err(Error::InvalidQuery));
    transaction
        .with_advisory_xact_lock("key", QUIET, |conn| write(conn))
        .unwrap();
    assert_eq!(count(&transaction), 2);
    transaction.rollback().unwrap();
    assert_eq!(count(&conn), 0);
}

/// The inner body exchanges the transaction. Its scope must neither commit nor keep the new one.
#[test]
fn a_scope_in_an_exchanged_transaction_is_not_committed() {
    let exchange = |conn: &mut Connection| {
        conn.execute_batch("ROLLBACK; BEGIN")?;
        write(conn)
    };
    let mut conn = connect();
    let ended = conn.with_advisory_xact_lock("outer", QUIET, exchange);
    assert_eq!(kind_of(ended), Some(LockErrorKind::NotHeld));
    assert_eq!((conn.is_autocommit(), count(&conn)), (true, 0));

    let mut inner = Ok(());
    let outer = conn.with_advisory_xact_lock("outer", QUIET, |conn| {
        inner = conn.with_advisory_xact_lock("inner", QUIET, exchange);
        Ok::<_, Error>(())
    });
    assert_eq!(kind_of(inner), Some(LockErrorKind::NotHeld));
    assert_eq!(kind_of(outer), Some(LockErrorKind::NotHeld));
    assert_eq!((conn.is_autocommit(), count(&conn)), (true, 0));
}

/// The inner body rolls its scope back. The inner scope must not commit the outer one instead.
#[test]
fn a_rolled_back_inner_scope_does_not_commit_the_outer_one() {
    let mut conn = connect();
    let mut inner = Ok(());
    let outer = conn.with_advisory_xact_lock("outer", QUIET, |conn| {
        write(conn)?;
        conn.execute_batch("SAVEPOINT own")?;
        inner = conn
            .with_advisory_xact_lock("inner", QUIET, |conn| conn.execute_batch("ROLLBACK TO own"));
        Ok::<_, Error>(())
    });
    assert_eq!(kind_of(inner), Some(LockErrorKind::NotHeld));
    assert_eq!(kind_of(outer), Some(LockErrorKind::NotHeld));
    assert_eq!((conn.is_autocommit(), count(&conn)), (true, 0));
    // The connection stays usable, also for nested scopes.
    conn.with_advisory_xact_lock("outer", QUIET, |conn| {
        write(conn)?;
        conn.with_advisory_xact_lock("inner", QUIET, |conn| {
            conn.with_advisory_xact_lock("innermost", QUIET, |conn| write(conn))
        })
    })
    .unwrap();
    assert_eq!((conn.is_autocommit(), count(&conn)), (true, 2));
}

/// A rollback needs no lock of SQLite. A commit waits for the readers.
#[test]
fn a_failed_body_waits_for_no_reader() {
    static WAITS: AtomicU32 = AtomicU32::new(0);
    let name = format!("advisory-locking-{}.sqlite", std::process::id());
    let path = std::env::temp_dir().join(name);
    // A test that failed may have left the file, with the same process id.
    let _ = std::fs::remove_file(&path);
    let [mut conn, reader] = [(); 2].map(|()| Connection::open(&path).unwrap());
    conn.execute_batch("CREATE TABLE written (number INTEGER)")
        .unwrap();
    conn.busy_handler(Some(|_| {
        WAITS.fetch_add(1, Ordering::Relaxed);
        false
    }))
    .unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(count(&reader), 0);
    for commits in [false, true] {
        let ended = conn.with_advisory_xact_lock("key", QUIET, |conn| {
            write(conn)?;
            if commits {
                Ok(())
            } else {
                Err(Error::InvalidQuery)
            }
        });
        assert!(ended.is_err() && conn.is_autocommit());
        assert_eq!(WAITS.load(Ordering::Relaxed), u32::from(commits));
    }
    drop((conn, reader));
    std::fs::remove_file(path).unwrap();
}

/// SQLite leaves a transaction open if its commit fails. The crate must roll it back.
#[test]
fn a_failed_commit_is_a_rusqlite_error_and_rolled_back() {
    let mut conn = connect();
    conn.execute_batch(
        "PRAGMA foreign_keys = ON; CREATE TABLE parent (id INTEGER PRIMARY KEY); \
         CREATE TABLE child (parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    .unwrap();
    let failed = conn.with_advisory_xact_lock("key", QUIET, |conn| {
        write(conn)?;
        conn.execute("INSERT INTO child VALUES (7)", [])
    });
    assert!(
        matches!(failed, Err(Error::SqliteFailure(..))),
        "{failed:?}"
    );
    assert!(conn.is_autocommit());
    assert_eq!(count(&conn), 0);
}

#[test]
fn a_lock_error_is_the_source_of_rusqlites_error() {
    let strict = QUIET.on_missing_lock(OnMissingLock::Error);
    let refused = connect().with_advisory_lock("key", strict, |conn| write(conn));
    let Err(Error::ToSqlConversionFailure(error)) = refused else {
        unreachable!("SQLite has no locks: {refused:?}")
    };
    let error = error.downcast::<LockError>().unwrap();
    assert_eq!(error.kind(), LockErrorKind::NoMutualExclusion);
}

/// Text of the log.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct WritesLog;

impl io::Write for WritesLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The other tests of this program use `QUIET`.
#[test]
fn warnings_end_with_the_64th_key() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(|| WritesLog)
        .finish();
    let mut conn = connect();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..70 {
            conn.with_advisory_lock(("warned", number), LockOptions::no_wait(), |conn| {
                write(conn)
            })
            .unwrap();
        }
    });
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    let count_of = |text: &str| {
        let lines = log.lines().filter(|line| line.contains(" WARN "));
        lines.filter(|line| line.contains(text)).count()
    };
    assert_eq!(count_of("running without mutual exclusion"), 64, "{log}");
    assert_eq!(count_of("no further keys are warned about"), 1, "{log}");
    assert_eq!(count_of("keys=64"), 1, "{log}");
}
