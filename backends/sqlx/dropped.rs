//! Rollback of a transaction whose commit or rollback was dropped in flight.

use ::sqlx::Database;
use sqlx_core::transaction::TransactionManager;

type Connection<M> = <<M as TransactionManager>::Database as Database>::Connection;

/// Connection at the end of its innermost transaction. Rolls the transaction back if it is dropped
/// before [`ended`](Self::ended).
///
/// sqlx's own transactions do the same, and its SQLite worker relies on that. If the commit
/// succeeds, the server warns that there is no transaction to roll back (seen with sqlx 0.9.0).
/// sqlx has no other way to lower its count of open transactions in a drop.
pub(super) struct EndingTransaction<'c, M: TransactionManager> {
    conn: &'c mut Connection<M>,
    ended: bool,
}

impl<'c, M: TransactionManager> EndingTransaction<'c, M> {
    pub(super) const fn new(conn: &'c mut Connection<M>) -> Self {
        Self { conn, ended: false }
    }

    pub(super) const fn connection(&mut self) -> &mut Connection<M> {
        self.conn
    }

    pub(super) fn ended(mut self) {
        self.ended = true;
    }
}

impl<M: TransactionManager> Drop for EndingTransaction<'_, M> {
    fn drop(&mut self) {
        if !self.ended {
            M::start_rollback(self.conn);
        }
    }
}
