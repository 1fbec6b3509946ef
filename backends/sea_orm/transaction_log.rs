//! Open transactions and pending clean-up of a pinned connection.
//!
//! The log is readable and writable while another task uses the connection, and in a drop.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sea_orm::DbErr;

use super::error::transaction_ended_error;
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
    /// Transaction that was begun last.
    last: TransactionId,
    /// No further statement may run: the session ends when the connection is dropped.
    pub(super) closed: bool,
    /// Process id of the session that replied last.
    pub(super) pid: Option<i32>,
    /// The rest of a stream that was leaked must be read.
    pub(super) has_leaked_stream: bool,
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

/// Identity of a transaction on a connection, where its level alone may be reused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct TransactionId(u64);

impl TransactionLogInner {
    /// Returns whether the connection may return to its pool.
    pub(super) fn is_reusable(&self) -> bool {
        !self.closed && self.open.is_empty() && self.pending_cleanup.is_empty()
    }

    /// Returns the level of this transaction, which is the number of those around it. Fails if it
    /// has ended.
    pub(super) fn level_of(&self, id: TransactionId) -> Result<usize, DbErr> {
        let level = self.open.iter().position(|open| *open == id);
        level.ok_or_else(transaction_ended_error)
    }

    /// Records that a transaction has begun at this level.
    ///
    /// Fails and records nothing if an outer transaction was dropped meanwhile.
    pub(super) fn push(&mut self, level: usize) -> Result<TransactionId, DbErr> {
        if self.open.len() != level {
            return Err(transaction_ended_error());
        }
        self.last.0 += 1;
        self.open.push(self.last);
        Ok(self.last)
    }

    /// Removes a transaction with those inside it, and returns its level. Fails if it has ended.
    pub(super) fn end(&mut self, id: TransactionId) -> Result<usize, DbErr> {
        let level = self.level_of(id)?;
        self.open.truncate(level);
        Ok(level)
    }

    /// Moves a transaction and those inside it from the open ones to the pending rollbacks.
    ///
    /// Returns `false` if it has ended already.
    pub(super) fn drop_transaction(&mut self, id: TransactionId) -> bool {
        // One rollback ends the inner transactions, too, so they need none of their own.
        let Ok(level) = self.end(id) else {
            return false;
        };
        self.pending_cleanup.push_back(Cleanup::Rollback(level));
        true
    }

    /// Moves the transactions inside this one from the open ones to the pending rollbacks.
    pub(super) fn drop_inner(&mut self, id: TransactionId) {
        let level = self.level_of(id);
        let inner = level.ok().and_then(|level| self.open.get(level + 1));
        if let Some(inner) = inner.copied() {
            self.drop_transaction(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log with open transactions at the levels from 0, and their ids.
    fn log_with<const OPEN: usize>() -> (TransactionLogInner, [TransactionId; OPEN]) {
        let mut log = TransactionLogInner::default();
        let ids = std::array::from_fn(|level| log.push(level).unwrap());
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
        for (dropped, level, pushed) in [
            (None, 2, true),
            // Another transaction was begun at this level.
            (None, 1, false),
            (None, 0, false),
            // An outer transaction was dropped, and its rollback would end the new one.
            (Some(1), 2, false),
            (Some(0), 2, false),
        ] {
            let (mut log, ids) = log_with::<2>();
            if let Some(dropped) = dropped {
                assert!(log.drop_transaction(ids[dropped]));
            }
            let (open, what) = (log.open.clone(), format!("{dropped:?}, level {level}"));
            match log.push(level) {
                Ok(id) => {
                    assert!(pushed, "{what}");
                    assert!(
                        !ids.contains(&id),
                        "{what}: a level may be reused, an id is not"
                    );
                    assert_eq!(log.level_of(id).ok(), Some(level), "{what}");
                }
                Err(_) => {
                    assert!(!pushed, "{what}");
                    assert_eq!(log.open, open, "{what}");
                }
            }
        }
    }

    #[test]
    fn drop_transaction_ends_the_inner_ones() {
        for level in 0..3 {
            let (mut log, ids) = log_with::<3>();
            assert!(log.drop_transaction(ids[level]));
            assert_eq!(log.open, ids[..level]);
            assert_eq!(pending_rollbacks(&log), [level]);
            for ended in &ids[level..] {
                assert!(!log.drop_transaction(*ended), "it ends once");
            }
            assert_eq!(pending_rollbacks(&log), [level]);
        }
    }

    /// They are run in this order: the rollback of a savepoint needs its transaction.
    #[test]
    fn pending_rollbacks_of_inner_transactions_come_first() {
        let (mut log, ids) = log_with::<3>();
        for id in ids.iter().rev() {
            assert!(log.drop_transaction(*id));
        }
        assert_eq!(pending_rollbacks(&log), [2, 1, 0]);
    }

    #[test]
    fn end_removes_the_transaction_and_the_inner_ones() {
        for level in 0..3 {
            let (mut log, ids) = log_with::<3>();
            assert_eq!(log.end(ids[level]).ok(), Some(level));
            assert_eq!(log.open, ids[..level]);
            assert!(pending_rollbacks(&log).is_empty());
            for ended in &ids[level..] {
                assert!(log.end(*ended).is_err(), "it ends once");
                assert!(!log.drop_transaction(*ended), "no rollback follows");
            }
        }
    }

    #[test]
    fn commit_rolls_back_open_inner_transactions_first() {
        let (mut log, ids) = log_with::<3>();
        log.drop_inner(ids[0]);
        assert_eq!(log.open, ids[..1], "the outer one is still open");
        assert_eq!(pending_rollbacks(&log), [1]);
        log.drop_inner(ids[0]);
        assert_eq!(pending_rollbacks(&log), [1], "it has none any more");
        assert_eq!(log.end(ids[0]).ok(), Some(0));
        // The drop of an inner one precedes the commit on another thread.
        let (mut log, ids) = log_with::<2>();
        assert!(log.drop_transaction(ids[1]));
        log.drop_inner(ids[0]);
        assert_eq!(pending_rollbacks(&log), [1]);
    }

    #[test]
    fn commit_fails_after_the_drop_of_an_outer_one() {
        let (mut log, ids) = log_with::<2>();
        assert!(log.drop_transaction(ids[0]));
        log.drop_inner(ids[1]);
        assert!(log.end(ids[1]).is_err());
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
