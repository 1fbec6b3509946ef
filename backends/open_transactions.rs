//! Transactions that this crate has begun on a `Client` of tokio-postgres or postgres, and its
//! savepoints on a `Connection` of rusqlite.
//!
//! # Implementation details
//!
//! A `Client` does not know whether a transaction is open, and has no place for a mark. So the
//! depth is kept in a map of the process, whose key is the address of the `Client`. From the begin
//! to the end of its transaction, the crate has an exclusive borrow of the `Client`, which keeps it
//! at that address. Every end removes the entry: commit, rollback, termination of the session.
//!
//! A future that is leaked ends nothing, so its entry stays. A `Client` at that address later has a
//! depth that is too great:
//!
//! * A session-level lock is refused. So is a savepoint, by the server.
//! * A lock by `acquire_advisory_xact_lock` is granted, and ends with its statement.
//!
//! If a body exchanges its `Client` for another one, the check before the commit finds that.
//!
//! A `Connection` knows whether a transaction is open, but not the number of its savepoints. So
//! only the savepoints of the crate are counted there. If a body ends its transaction with plain
//! SQL, the end of the scope removes the entry: a `Client` may be at the address later.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "_rust-postgres")]
use crate::session::{SessionError, SqlState};

/// The depth by the address of the client.
static DEPTHS: Mutex<BTreeMap<usize, u32>> = Mutex::new(BTreeMap::new());

fn depths() -> MutexGuard<'static, BTreeMap<usize, u32>> {
    DEPTHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the number of transactions and savepoints that this crate has begun on a client.
pub(crate) fn depth<C>(client: &C) -> u32 {
    let depth = depths().get(&ptr::from_ref(client).addr()).copied();
    depth.unwrap_or(0)
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

/// Returns the name of the savepoint that this crate sets inside `outer` transactions. `None`:
/// there it begins a transaction.
pub(crate) fn savepoint(outer: u32) -> Option<String> {
    (outer > 0).then(|| format!("advisory_locking_{outer}"))
}

/// Returns the name of the innermost savepoint of a connection that stands for `outer`
/// transactions. `None`: the transaction has no savepoint.
pub(crate) fn innermost_savepoint<C>(client: &C, outer: u32) -> Option<String> {
    savepoint(outer.saturating_add(depth(client)).saturating_sub(1))
}

/// Returns the error of a begin in a transaction that the application began as plain text.
#[cfg(feature = "_rust-postgres")]
pub(crate) fn unknown_transaction() -> SessionError {
    SessionError::new("the session is in a transaction that this crate does not know of")
        .with_code(Some(SqlState::OTHER_TRANSACTION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savepoint_is_named_after_the_depth_around_it() {
        assert_eq!(savepoint(0), None);
        assert_eq!(savepoint(2).as_deref(), Some("advisory_locking_2"));
        let client = Box::new(3_u8);
        push(&*client);
        assert_eq!(innermost_savepoint(&*client, 0), None);
        assert_eq!(innermost_savepoint(&*client, 1), savepoint(1));
        push(&*client);
        assert_eq!(innermost_savepoint(&*client, 0), savepoint(1));
        clear(&*client);
        assert_eq!(innermost_savepoint(&*client, 0), None);
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
