//! The state of a lock manager at one moment: [`LockManagerSnapshot`].

use std::fmt;
use std::time::Duration;

use crate::key::{LockKey, RawLockKey};
use crate::options::LockMode;

/// State of a lock manager at one moment: its keys, holders, wait queues and sessions.
///
/// It comes from the memory of the process, so it shows the callers of this lock manager only.
/// [`advisory_lock_holders`](crate::AdvisoryLocking::advisory_lock_holders) shows the sessions of
/// other processes.
///
/// `Display` prints one line for the lock manager and one for each key.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LockManagerSnapshot {
    /// The keys in use, in ascending order of the raw keys. A key is in use while it has a holder,
    /// a waiter or a statement in flight.
    pub keys: Vec<KeySnapshot>,
    /// The sessions, in the order in which they were opened.
    pub sessions: Vec<ManagedSession>,
    /// `true` after [`close`](super::LockManager::close), or after the pool was closed.
    pub is_closed: bool,
    /// Number of batches since the lock manager was created, health checks included. The first
    /// statement of a session, waits on the server and the clean-up of a failed batch do not count.
    pub batches: u64,
    /// Number of grants without the server since then: to the next waiter, or to a further holder
    /// of a shared lock.
    pub hand_offs: u64,
    /// Number of sessions that were lost since then.
    pub lost_sessions: u64,
}

impl LockManagerSnapshot {
    /// Returns the number of callers that hold a lock.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.keys.iter().map(|key| key.holders).sum()
    }

    /// Returns the number of callers that wait for a lock.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.keys.iter().map(|key| key.waiters).sum()
    }
}

/// State of one key of a lock manager.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeySnapshot {
    /// The key, with the text of the first request since the key is in use.
    pub key: LockKey,
    /// Mode in which the lock is held. `None`: this lock manager does not hold it.
    pub mode: Option<LockMode>,
    /// Number of callers that hold the lock; more than one in shared mode only.
    pub holders: usize,
    /// Number of callers that wait for the lock. A request that waits for the reply of the server
    /// is one of them.
    pub waiters: usize,
    /// Time since the last grant to a holder. `None` without a holder.
    pub held_for: Option<Duration>,
    /// Time since the request of the first waiter. `None` without a waiter.
    pub longest_wait: Option<Duration>,
    /// [Generation](super::OwnedLockGuard::generation) of the session that holds the lock or works
    /// on the key. `None`: no session does, and the next poll follows. 0 on a backend without
    /// locks.
    pub generation: Option<u64>,
}

/// Session of a lock manager.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ManagedSession {
    /// Number of the session, which is the [generation](super::OwnedLockGuard::generation) of its
    /// locks.
    pub generation: u64,
    /// Process id of the session on the server. `None` until it is open.
    pub pid: Option<i32>,
    /// Current work of the session.
    pub state: ManagedSessionState,
    /// Key for which the session waits, or has waited, in the server's queue.
    pub dedicated_to: Option<RawLockKey>,
    /// Number of keys that the session holds or works on.
    pub keys: usize,
    /// Number of operations that wait for the reply in flight.
    pub outbox: usize,
}

/// Current work of a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ManagedSessionState {
    /// The pool checks out a connection, or its first statement is in flight.
    Opening,
    /// No statement is in flight.
    Idle,
    /// A statement is in flight.
    Executing,
    /// The session waits in the server's queue.
    WaitingOnServer,
}

impl fmt::Display for LockManagerSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = if self.is_closed { ", closed" } else { "" };
        write!(
            formatter,
            "{} keys, {} holders, {} waiters, {} sessions{closed}",
            self.keys.len(),
            self.holders(),
            self.waiters(),
            self.sessions.len(),
        )?;
        self.keys
            .iter()
            .try_for_each(|key| write!(formatter, "\n{key}"))
    }
}

impl fmt::Display for KeySnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} holders", self.key, self.holders)?;
        if let Some(held) = self.held_for {
            write!(formatter, ", for {held:.1?}")?;
        }
        write!(formatter, "; {} waiters", self.waiters)?;
        if let Some(wait) = self.longest_wait {
            write!(formatter, ", the first for {wait:.1?}")?;
        }
        Ok(())
    }
}
