//! Open transactions and pending clean-up of a pinned connection.
//!
//! The log is readable and writable while another task uses the connection, and in a drop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Transaction log of one pinned connection.
#[derive(Debug, Default)]
pub(super) struct TransactionLog(Mutex<TransactionLogInner>);

impl TransactionLog {
    pub(super) fn lock(&self) -> MutexGuard<'_, TransactionLogInner> {
        // No method panics between two changes, so a poisoned log is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(super) struct TransactionLogInner {
    /// Open transactions and savepoints, the outermost first, as they will be after the clean-up.
    pub(super) open: Vec<TransactionId>,
    /// No further statement may run: the session ends when the connection is dropped.
    pub(super) closed: bool,
    /// Runs before any other statement, in this order.
    pub(super) pending_cleanup: VecDeque<Cleanup>,
}

/// Statement that a drop has left to run.
#[derive(Debug)]
pub(super) enum Cleanup {
    /// Simple-query message, whose reply is ignored.
    Message(String),
    /// Rollback of the transaction at this level, which was neither committed nor rolled back.
    Rollback(usize),
}

/// Identity of a transaction on a connection, where its level alone may be reused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TransactionId(u64);

impl TransactionId {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Relaxed: the ids must differ, and order no other memory access.
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

impl TransactionLogInner {
    pub(super) fn is_clean(&self) -> bool {
        self.pending_cleanup.is_empty()
    }

    /// Returns whether the connection may return to its pool.
    pub(super) fn is_reusable(&self) -> bool {
        !self.closed && self.open.is_empty() && self.is_clean()
    }

    /// Returns the level of this transaction, which is the number of those around it, if it is
    /// open.
    pub(super) fn level_of(&self, id: TransactionId) -> Option<usize> {
        self.open.iter().position(|open| *open == id)
    }

    pub(super) fn innermost(&self) -> Option<TransactionId> {
        self.open.last().copied()
    }

    /// Records that a transaction has begun at this level.
    ///
    /// Returns `false` and records nothing if an outer transaction was dropped meanwhile.
    pub(super) fn push(&mut self, level: usize, id: TransactionId) -> bool {
        let outer_open = self.open.len() == level && !self.has_pending_rollback_up_to(level);
        if outer_open {
            self.open.push(id);
        }
        outer_open
    }

    /// Records that the transactions from this level on have ended, which makes their pending
    /// rollbacks obsolete.
    pub(super) fn truncate(&mut self, level: usize) {
        self.open.truncate(level);
        self.pending_cleanup
            .retain(|cleanup| !matches!(cleanup, Cleanup::Rollback(at) if *at >= level));
    }

    /// Moves a transaction and those inside it from the open ones to the pending rollbacks.
    ///
    /// Returns `false` if it has ended already.
    pub(super) fn drop_transaction(&mut self, id: TransactionId) -> bool {
        let Some(level) = self.level_of(id) else {
            return false;
        };
        // One rollback ends the inner transactions, too, so they need none of their own.
        self.open.truncate(level);
        self.pending_cleanup.push_back(Cleanup::Rollback(level));
        true
    }

    fn has_pending_rollback_up_to(&self, level: usize) -> bool {
        let mut pending = self.pending_cleanup.iter();
        pending.any(|cleanup| matches!(cleanup, Cleanup::Rollback(at) if *at <= level))
    }
}
