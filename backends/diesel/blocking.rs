//! Diesel's transaction manager, for connections of both databases.

use diesel::Connection;
use diesel::connection::{TransactionManager, TransactionManagerStatus};

use super::{session_error, transaction_state_of};
use crate::session::{SessionError, TransactionState};

/// Returns the transaction manager's view of the transaction.
pub(super) fn transaction_state<C: Connection>(conn: &mut C) -> TransactionState {
    let depth = manager_status(conn).transaction_depth();
    transaction_state_of(
        depth,
        C::TransactionManager::is_broken_transaction_manager(conn),
    )
}

pub(super) fn manager_status<C: Connection>(conn: &mut C) -> &mut TransactionManagerStatus {
    C::TransactionManager::transaction_manager_status_mut(conn)
}

pub(super) fn begin<C: Connection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::begin_transaction(conn).map_err(session_error)
}

pub(super) fn commit<C: Connection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::commit_transaction(conn).map_err(session_error)
}

pub(super) fn rollback<C: Connection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::rollback_transaction(conn).map_err(session_error)
}
