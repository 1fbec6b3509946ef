//! PostgreSQL: the statements of the protocol, and the meaning of their replies and errors.
//!
//! This module is below the ports of [`session`](crate::session), which re-export its types.
//! Adapters send its [statements](Statement) and [scripts](Script) and do not interpret them.
//!
//! # Implementation details
//!
//! Every name has its schema, functions and operators alike, so that an object of the same name on
//! the [`search_path`] is never called instead. The only values are numbers and the name of a
//! sequence. They are bound in a statement and written out in a script.
//!
//! A statement is prepared once per connection. Its text is one of a few, selected by the
//! [number](Statement::id), and is built once in the process.
//!
//! # Ways to release a lock
//!
//! Each row exists because none of the others does its work.
//!
//! | text | sent | reason |
//! |---|---|---|
//! | [`StatementKind::Release`] | at the release of a guard | one round trip; does nothing on another session or in the transaction of the grant, and returns which it was |
//! | [`StatementKind::ReleaseIfHeld`] | after a wait that failed | the lock may not be held, and [`pg_advisory_unlock`] would write a warning to the log; does nothing on another session |
//! | [`Script::ReleaseOrTerminate`] | at the drop of an async guard | no task waits for the reply, so the messages check it themselves |
//! | a single [`LockOpKind::Release`] | by a lock manager | knows its session, so it returns neither session nor transaction |
//! | [`LockOpKind::Release`] in a batch | by a lock manager | one statement for many operations; as a batch of one it costs the server 28 µs more |
//! | [`BatchMode::Compensate`] | after a batch that failed | releases what `pg_locks` shows, because the batch may have stopped anywhere |
//! | [`TerminateStep`] | if the state of the session is unknown | ends the session; the release of all locks is for a server that forbids that |
//!
//! [`pg_advisory_unlock`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS
//! [`search_path`]: https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATH

mod batch;
mod error;
mod lock;
#[cfg(any(feature = "_sqlx-postgres", feature = "deadpool-postgres"))]
pub(crate) mod lost_statements;
mod reply;
mod report;
mod script;
mod server_identity;
mod server_signs;
mod statement;
mod terminate;
mod wait;

pub use batch::{BatchMode, LockBatch, LockOp, LockOpKind, TokenSource};
pub use error::{SessionError, SqlState};
pub(crate) use error::{classify, classify_attempt, hint};
pub use reply::{BatchReply, Cell, LockReply, Row};
#[cfg(any(feature = "sqlx-postgres", feature = "_rust-postgres"))]
pub(crate) use script::BEGAN_WITH_THIS_MESSAGE;
pub use script::Script;
#[cfg(any(
    test,
    feature = "diesel-postgres",
    feature = "diesel-async-postgres",
    feature = "_sqlx-postgres"
))]
pub(crate) use script::begin;
pub use statement::{Bind, Statement, StatementKind};
pub use terminate::TerminateStep;
#[cfg(any(test, feature = "_sqlx-postgres"))]
pub(crate) use terminate::terminate_if_waiting;

use crate::server_signs::ServerSigns;

/// The `timestamptz` `-infinity` in the binary format. It is never the start of a transaction.
const NEGATIVE_INFINITY: i64 = i64::MIN;

/// Returns the text that begins a transaction, or a savepoint in one.
#[cfg(any(test, feature = "sea-orm", feature = "_rust-postgres"))]
pub(crate) fn begin_text(savepoint: Option<&str>) -> String {
    savepoint.map_or_else(|| "BEGIN".to_owned(), |name| format!("SAVEPOINT {name}"))
}

/// Returns the text that commits a transaction, or releases a savepoint, after a check.
///
/// In an aborted transaction a bare [`COMMIT`] rolls back and succeeds, and outside a transaction
/// it only warns. The check fails in both cases, and without a check, a savepoint does.
///
/// [`COMMIT`]: https://www.postgresql.org/docs/current/sql-commit.html
#[cfg(any(
    test,
    feature = "diesel-postgres",
    feature = "diesel-async-postgres",
    feature = "sea-orm",
    feature = "_rust-postgres"
))]
pub(crate) fn commit_text(savepoint: Option<&str>, check: Option<&Script>) -> String {
    let end = savepoint.map_or_else(
        || "COMMIT".to_owned(),
        |name| format!("RELEASE SAVEPOINT {name}"),
    );
    match (check, savepoint) {
        (Some(check), _) => format!("{}; {end}", check.sql()),
        (None, None) => format!("SAVEPOINT advisory_locking; {end}"),
        // It fails if the savepoint is gone.
        (None, Some(_)) => end,
    }
}

/// Returns the text that rolls back a transaction, or rolls back to a savepoint and releases it.
pub(crate) fn rollback_text(savepoint: Option<&str>) -> String {
    savepoint.map_or_else(
        || "ROLLBACK".to_owned(),
        |name| format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"),
    )
}

#[cfg(test)]
mod tests;
