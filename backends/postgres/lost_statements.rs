//! Prepared statements that a session has lost, while the client has them in its cache.
//!
//! [`DISCARD ALL`] removes them, for example in a hook of a pool that runs at each return of a
//! connection. Outside a transaction the statement, which did not run, is prepared again. In a
//! transaction the error aborts the transaction, so its caller gets the error.
//!
//! The caller gets that error once in a process. From then on, attempts in a transaction are not
//! prepared. They are prepared before that, because otherwise the server parses and plans the
//! attempt in each transaction.
//!
//! [`DISCARD ALL`]: https://www.postgresql.org/docs/current/sql-discard.html

use std::sync::atomic::{AtomicBool, Ordering};

use super::{SqlState, Statement, StatementKind};

/// Set once a session of this process has lost its prepared statements.
///
/// Relaxed: a call that does not see the flag yet fails as the first one did.
static ANY_LOST: AtomicBool = AtomicBool::new(false);

/// Returns whether the code says that the session has no prepared statement of this name, and
/// records that.
pub(crate) fn is_statement_lost(code: Option<SqlState>) -> bool {
    let is_lost = code.is_some_and(|code| code.as_str() == "26000");
    if is_lost {
        ANY_LOST.store(true, Ordering::Relaxed);
    }
    is_lost
}

/// Returns whether an error about a lost statement may abort the transaction of the caller.
pub(crate) fn may_abort_transaction(
    statement: &Statement,
    in_transaction: impl FnOnce() -> bool,
) -> bool {
    let is_attempt = matches!(statement.kind(), Some(StatementKind::TryAcquire { .. }));
    ANY_LOST.load(Ordering::Relaxed) && is_attempt && in_transaction()
}
