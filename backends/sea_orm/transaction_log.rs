//! Open transactions and pending clean-up of a pinned connection.
//!
//! The log is readable and writable while another task uses the connection, and in a drop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::session::QueuedRelease;

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
    /// Process id of the session that replied last.
    pub(super) pid: Option<i32>,
    /// Runs before any other statement, in this order.
    pub(super) pending_cleanup: VecDeque<Cleanup>,
}

/// Statement that a drop has left to run.
#[derive(Debug)]
pub(super) enum Cleanup {
    /// Simple-query message. Only the release of a dropped guard uses its reply.
    Message(String, Option<QueuedRelease>),
    /// Rollback of the transaction at this level, which was neither committed nor rolled back.
    Rollback(usize),
}

/// Next step of the commit of a transaction.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum CommitStep {
    /// Clean-up is pending: run it, and start the commit again.
    RunCleanup,
    /// The transaction at this level has left the log: send the commit.
    Send { level: usize },
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

    /// Starts the commit of a transaction, or returns `None` if it has ended.
    ///
    /// The transactions inside it whose owners have not committed them are rolled back first. The
    /// clean-up is read under the same lock: another thread may drop one of them at any time.
    pub(super) fn start_commit(&mut self, id: TransactionId) -> Option<CommitStep> {
        let level = self.level_of(id)?;
        if let Some(inner) = self.open.get(level + 1).copied() {
            self.drop_transaction(inner);
        }
        if !self.is_clean() {
            return Some(CommitStep::RunCleanup);
        }
        // Before the commit is sent: a dropped commit, too, has ended the transaction for its user.
        self.truncate(level);
        Some(CommitStep::Send { level })
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

    /// Removes the pending releases, whose messages are not sent any more.
    pub(super) fn take_releases(&mut self) -> Vec<QueuedRelease> {
        let pending = self.pending_cleanup.iter_mut();
        pending
            .filter_map(|cleanup| match cleanup {
                Cleanup::Message(_, release) => release.take(),
                Cleanup::Rollback(_) => None,
            })
            .collect()
    }

    fn has_pending_rollback_up_to(&self, level: usize) -> bool {
        let mut pending = self.pending_cleanup.iter();
        pending.any(|cleanup| matches!(cleanup, Cleanup::Rollback(at) if *at <= level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log with open transactions at the levels from 0, and their ids.
    fn log_with<const OPEN: usize>() -> (TransactionLogInner, [TransactionId; OPEN]) {
        let ids = [(); OPEN].map(|()| TransactionId::next());
        let log = TransactionLogInner {
            open: ids.to_vec(),
            ..TransactionLogInner::default()
        };
        (log, ids)
    }

    /// Levels of the pending rollbacks, in their order.
    fn pending_rollbacks(log: &TransactionLogInner) -> Vec<usize> {
        let levels = log.pending_cleanup.iter().map(|cleanup| match cleanup {
            Cleanup::Rollback(level) => *level,
            Cleanup::Message(message, _) => panic!("unexpected message {message}"),
        });
        levels.collect()
    }

    #[test]
    fn push_needs_an_open_outer_transaction() {
        for (pending, open, level, pushed) in [
            (None, 0, 0, true),
            (None, 2, 2, true),
            // The outer transaction was dropped, and its rollback has run or is pending.
            (None, 1, 2, false),
            (Some(1), 1, 2, false),
            // Another transaction was begun at this level.
            (None, 2, 1, false),
            // The rollback of this level, or of one around it, would end the new transaction.
            (Some(2), 2, 2, false),
            (Some(0), 0, 0, false),
            // One at a deeper level would not.
            (Some(3), 2, 2, true),
        ] {
            let id = TransactionId::next();
            let mut log = TransactionLogInner {
                open: (0..open).map(|_| TransactionId::next()).collect(),
                pending_cleanup: pending.map(Cleanup::Rollback).into_iter().collect(),
                ..TransactionLogInner::default()
            };
            let what = format!("pending {pending:?}, {open} open, level {level}");
            assert_eq!(log.push(level, id), pushed, "{what}");
            assert_eq!(log.level_of(id), pushed.then_some(level), "{what}");
            assert_eq!(log.open.len(), open + usize::from(pushed), "{what}");
        }
    }

    #[test]
    fn drop_transaction_ends_the_inner_ones() {
        for level in 0..3 {
            let (mut log, ids) = log_with::<3>();
            assert!(log.drop_transaction(ids[level]));
            assert_eq!(log.open, ids[..level]);
            assert_eq!(pending_rollbacks(&log), [level]);
            assert!(!log.is_clean());
            for ended in &ids[level..] {
                assert!(!log.drop_transaction(*ended), "it ends once");
            }
            assert_eq!(pending_rollbacks(&log), [level]);
        }
    }

    #[test]
    fn truncate_keeps_the_rollbacks_of_outer_levels() {
        for (level, kept) in [
            (0, vec![]),
            (1, vec![0]),
            (2, vec![0, 1]),
            (3, vec![0, 1, 2]),
        ] {
            let (mut log, ids) = log_with::<3>();
            log.pending_cleanup = [0, 1, 2].map(Cleanup::Rollback).into();
            log.truncate(level);
            assert_eq!(log.open, ids[..level]);
            assert_eq!(pending_rollbacks(&log), kept);
        }
        let mut log = TransactionLogInner::default();
        log.pending_cleanup
            .push_back(Cleanup::Message("release".to_owned(), None));
        log.truncate(0);
        assert!(!log.is_clean(), "messages are not obsolete");
    }

    #[test]
    fn commit_of_the_innermost_transaction_is_sent() {
        for level in 0..3 {
            let (mut log, ids) = log_with::<3>();
            log.truncate(level + 1);
            assert_eq!(
                log.start_commit(ids[level]),
                Some(CommitStep::Send { level })
            );
            assert_eq!(log.open, ids[..level]);
            assert_eq!(log.start_commit(ids[level]), None, "it has ended");
        }
    }

    #[test]
    fn commit_rolls_back_open_inner_transactions_first() {
        let (mut log, ids) = log_with::<3>();
        assert_eq!(log.start_commit(ids[0]), Some(CommitStep::RunCleanup));
        assert_eq!(log.open, ids[..1], "the outer one is still open");
        assert_eq!(pending_rollbacks(&log), [1]);
        log.pending_cleanup.clear();
        assert_eq!(
            log.start_commit(ids[0]),
            Some(CommitStep::Send { level: 0 })
        );
    }

    /// The drop precedes the commit on another thread, after the committing task ran the clean-up.
    #[test]
    fn commit_keeps_the_rollback_of_a_dropped_inner_one() {
        let (mut log, ids) = log_with::<2>();
        assert!(log.drop_transaction(ids[1]));
        assert_eq!(log.start_commit(ids[0]), Some(CommitStep::RunCleanup));
        assert_eq!(pending_rollbacks(&log), [1]);
    }

    #[test]
    fn commit_fails_after_the_drop_of_an_outer_one() {
        let (mut log, ids) = log_with::<2>();
        assert!(log.drop_transaction(ids[0]));
        assert_eq!(log.start_commit(ids[1]), None);
        assert_eq!(pending_rollbacks(&log), [0]);
    }

    #[test]
    fn connection_is_reusable_if_clean_and_open() {
        assert!(TransactionLogInner::default().is_reusable());
        let (open, _) = log_with::<1>();
        let closed = TransactionLogInner {
            closed: true,
            ..TransactionLogInner::default()
        };
        let pending = TransactionLogInner {
            pending_cleanup: [Cleanup::Message("release".to_owned(), None)].into(),
            ..TransactionLogInner::default()
        };
        for log in [open, closed, pending] {
            assert!(!log.is_reusable(), "{log:?}");
        }
    }
}
