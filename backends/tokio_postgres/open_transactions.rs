//! Transactions that this crate has begun on a `Client`, and the texts that begin and end them.
//!
//! # Implementation details
//!
//! A `Client` does not know whether a transaction is open, and has no place for a mark. So the
//! depth is kept in a map of the process, whose key is the address of the `Client`. From the begin
//! to the end of its transaction, the crate has an exclusive borrow of the `Client`, which keeps it
//! at that address. Every end removes the entry: commit, rollback, termination of the session.
//!
//! A future that is leaked ends nothing, so its entry stays. A `Client` at that address later has a
//! depth that is too great. Its locks are then refused, or its savepoint fails: both are errors.
//!
//! If a body exchanges its `Client` for another one, the check before the commit finds that.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backends::postgres::{checked, release_savepoint, roll_back_savepoint};
use crate::session::{Script, SessionError, SqlState};

/// The depth by the address of the client.
static DEPTHS: Mutex<BTreeMap<usize, u32>> = Mutex::new(BTreeMap::new());

fn depths() -> MutexGuard<'static, BTreeMap<usize, u32>> {
    DEPTHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the number of transactions and savepoints that this crate has begun on a client.
pub(crate) fn depth<C>(client: &C) -> u32 {
    let depths = depths();
    depths
        .get(&ptr::from_ref(client).addr())
        .copied()
        .unwrap_or(0)
}

/// Counts one more transaction or savepoint.
pub(crate) fn push<C>(client: &C) {
    *depths().entry(ptr::from_ref(client).addr()).or_insert(0) += 1;
}

/// Counts one transaction or savepoint less.
pub(crate) fn pop<C>(client: &C) {
    let address = ptr::from_ref(client).addr();
    let mut depths = depths();
    match depths.get_mut(&address) {
        Some(depth) if *depth > 1 => *depth -= 1,
        // An entry of zero would remain for each `Client` that ever had a transaction.
        Some(_) | None => {
            depths.remove(&address);
        }
    }
}

/// Forgets all transactions of a client, whose session ends.
pub(crate) fn clear<C>(client: &C) {
    depths().remove(&ptr::from_ref(client).addr());
}

/// Returns the name of the savepoint that this crate sets at a depth.
fn savepoint(depth: u32) -> String {
    format!("advisory_locking_{depth}")
}

/// Returns the text that begins a transaction, or a savepoint at this depth.
pub(crate) fn begin_text(depth: u32) -> String {
    match depth {
        0 => "BEGIN".to_owned(),
        _ => format!("SAVEPOINT {}", savepoint(depth)),
    }
}

/// Returns the text that commits the innermost transaction or savepoint of this depth, after a
/// check.
pub(crate) fn commit_text(depth: u32, check: Option<&Script>) -> String {
    match depth {
        0 | 1 => checked(check, "COMMIT"),
        _ => release_savepoint(check, &savepoint(depth - 1)),
    }
}

/// Returns the text that rolls back the innermost transaction or savepoint of this depth.
pub(crate) fn rollback_text(depth: u32) -> String {
    match depth {
        0 | 1 => "ROLLBACK".to_owned(),
        _ => roll_back_savepoint(&savepoint(depth - 1)),
    }
}

/// Returns the error of a begin in a transaction that the application began as plain text.
pub(crate) fn unknown_transaction() -> SessionError {
    SessionError::new("the session is in a transaction that this crate does not know of")
        .with_code(Some(SqlState::OTHER_TRANSACTION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_nest_by_savepoints() {
        assert_eq!(begin_text(0), "BEGIN");
        assert_eq!(begin_text(2), "SAVEPOINT advisory_locking_2");
        assert_eq!(rollback_text(1), "ROLLBACK");
        // The depth after the begin.
        assert!(rollback_text(3).contains("ROLLBACK TO SAVEPOINT advisory_locking_2"));
        assert!(commit_text(3, None).contains("RELEASE SAVEPOINT advisory_locking_2"));
        assert!(commit_text(1, None).ends_with("COMMIT"));
    }

    #[test]
    fn depth_follows_begins_and_ends() {
        // Not of size zero, so that the two have different addresses.
        let (client, other) = (Box::new(1_u8), Box::new(2_u8));
        assert_eq!(depth(&*client), 0);
        push(&*client);
        push(&*client);
        assert_eq!((depth(&*client), depth(&*other)), (2, 0));
        pop(&*client);
        assert_eq!(depth(&*client), 1);
        pop(&*client);
        pop(&*client);
        assert_eq!(depth(&*client), 0);
        push(&*client);
        clear(&*client);
        assert_eq!(depth(&*client), 0);
    }
}
