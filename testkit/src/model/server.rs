//! The server: holders, and the wait queue of each key.

use std::collections::{BTreeMap, BTreeSet};

use advisory_locking::{LockMode, LockScope, RawLockKey};

use super::batches::Tokens;

/// The process id of a session.
pub type Pid = i32;
/// An SQLSTATE.
pub type Code = &'static str;
/// One wait.
pub type Ticket = u64;

/// A lock in a mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lock {
    pub key: RawLockKey,
    pub mode: LockMode,
}

/// The immediate result of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Requested {
    Granted,
    Busy,
    Queued(Ticket),
}

/// A row of `pg_locks`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    pub pid: Pid,
    pub mode: LockMode,
    pub granted: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) ticket: Ticket,
    pub(super) pid: Pid,
    pub(super) lock: Lock,
    pub(super) scope: LockScope,
}

/// A transaction (the first frame) or a savepoint in it.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) name: String,
    pub(super) locks: Vec<Lock>,
    /// The start of the transaction, in the first frame.
    pub(super) began: i64,
    pub(super) written: i64,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    /// One entry for each level.
    pub(super) locks: Vec<Lock>,
    pub(super) frames: Vec<Frame>,
    pub(super) aborted: bool,
    /// The numbers of the prepared statements.
    pub(super) prepared: BTreeSet<u8>,
    pub(super) written: i64,
}

impl Session {
    /// Every level of every lock, the session's and the transaction's.
    fn levels(&self) -> impl Iterator<Item = Lock> {
        let frames = self.frames.iter().flat_map(|frame| &frame.locks);
        self.locks.iter().chain(frames).copied()
    }

    pub(super) fn holds(&self, lock: Lock) -> bool {
        self.levels().any(|held| held == lock)
    }

    pub(super) fn conflicts(&self, lock: Lock) -> bool {
        self.levels()
            .any(|held| held.key == lock.key && conflict(held.mode, lock.mode))
    }
}

pub(super) fn conflict(one: LockMode, other: LockMode) -> bool {
    one == LockMode::Exclusive || other == LockMode::Exclusive
}

/// One database's advisory locks.
#[derive(Debug)]
pub struct Server {
    pub(super) sessions: BTreeMap<Pid, Session>,
    pub(super) queues: BTreeMap<RawLockKey, Vec<Waiter>>,
    pub(super) ended: BTreeMap<Ticket, Result<(), Code>>,
    last_pid: Pid,
    pub(super) last_start: i64,
    pub(super) last_ticket: Ticket,
    pub(super) tokens: Tokens,
    /// The number of keys that fit.
    pub capacity: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            sessions: BTreeMap::new(),
            queues: BTreeMap::new(),
            ended: BTreeMap::new(),
            last_pid: 100,
            last_start: 0,
            last_ticket: 0,
            tokens: Tokens::default(),
            capacity: usize::MAX,
        }
    }
}

impl Server {
    pub fn connect(&mut self) -> Pid {
        self.last_pid += 1;
        self.sessions.insert(self.last_pid, Session::default());
        self.last_pid
    }

    /// Asks for a lock. A wait goes on until its ticket has [`ended`](Self::ended).
    pub fn request(
        &mut self,
        pid: Pid,
        lock: Lock,
        scope: LockScope,
        wait: bool,
    ) -> Result<Requested, Code> {
        if self.usable(pid)?.holds(lock) {
            self.grant(pid, lock, scope);
            return Ok(Requested::Granted);
        }
        if self.is_full_for(lock.key) {
            return Err(self.fail(pid, "53200"));
        }
        let behind = self
            .queue(lock.key)
            .any(|waiter| conflict(waiter.lock.mode, lock.mode));
        if !behind && !self.conflicts(pid, lock) {
            self.grant(pid, lock, scope);
            Ok(Requested::Granted)
        } else if wait {
            self.enqueue(pid, lock, scope)
        } else {
            Ok(Requested::Busy)
        }
    }

    /// `pg_advisory_unlock`: `false` if the session does not hold a session-level lock.
    pub fn unlock(&mut self, pid: Pid, lock: Lock) -> Result<bool, Code> {
        self.usable(pid)?;
        let locks = &mut self.session(pid).locks;
        let found = locks.iter().position(|held| *held == lock);
        if let Some(index) = found {
            locks.remove(index);
            self.wake();
        }
        Ok(found.is_some())
    }

    /// `pg_advisory_unlock_all`.
    pub fn unlock_all(&mut self, pid: Pid) -> Result<(), Code> {
        self.usable(pid)?;
        self.session(pid).locks.clear();
        self.wake();
        Ok(())
    }

    /// `DEALLOCATE ALL`.
    pub fn deallocate_all(&mut self, pid: Pid) -> Result<(), Code> {
        self.usable(pid)?.prepared.clear();
        Ok(())
    }

    /// `DISCARD ALL`, as far as the model goes.
    pub fn discard_all(&mut self, pid: Pid) -> Result<(), Code> {
        self.deallocate_all(pid)?;
        self.unlock_all(pid)
    }

    /// Prepares a statement, unless the client has prepared it before.
    pub fn prepare(&mut self, pid: Pid, number: u8, is_cached: bool) -> Result<(), Code> {
        let prepared = &mut self.usable(pid)?.prepared;
        if is_cached && !prepared.contains(&number) {
            return Err(self.fail(pid, "26000"));
        }
        prepared.insert(number);
        Ok(())
    }

    /// The rows of `pg_locks` for a key: the holders by pid, then the queue.
    pub fn held(&self, key: RawLockKey) -> Vec<Held> {
        let mut rows = Vec::new();
        for (&pid, session) in &self.sessions {
            for mode in [LockMode::Exclusive, LockMode::Shared] {
                if session.holds(Lock { key, mode }) {
                    rows.push(Held {
                        pid,
                        mode,
                        granted: true,
                    });
                }
            }
        }
        rows.extend(self.queue(key).map(|waiter| Held {
            pid: waiter.pid,
            mode: waiter.lock.mode,
            granted: false,
        }));
        rows
    }

    pub fn is_alive(&self, pid: Pid) -> bool {
        self.sessions.contains_key(&pid)
    }

    /// Returns whether the transaction of a session is aborted.
    pub fn is_aborted(&self, pid: Pid) -> bool {
        self.sessions
            .get(&pid)
            .is_some_and(|session| session.aborted)
    }

    pub fn is_in_transaction(&self, pid: Pid) -> bool {
        self.sessions
            .get(&pid)
            .is_some_and(|session| !session.frames.is_empty())
    }

    pub fn holds(&self, pid: Pid, lock: Lock) -> bool {
        self.sessions
            .get(&pid)
            .is_some_and(|session| session.holds(lock))
    }

    /// Returns the number of levels of all locks that a session holds.
    pub fn levels_of(&self, pid: Pid) -> usize {
        self.sessions
            .get(&pid)
            .map_or(0, |session| session.levels().count())
    }

    pub(super) fn grant(&mut self, pid: Pid, lock: Lock, scope: LockScope) {
        let session = self.session(pid);
        if scope == LockScope::Session {
            session.locks.push(lock);
        } else if let Some(frame) = session.frames.last_mut() {
            // Outside a transaction it is gone with the statement.
            frame.locks.push(lock);
        }
    }

    pub(super) fn conflicts(&self, pid: Pid, lock: Lock) -> bool {
        self.sessions
            .iter()
            .any(|(other, session)| *other != pid && session.conflicts(lock))
    }

    fn is_full_for(&self, key: RawLockKey) -> bool {
        let mut keys: Vec<_> = self.queues.keys().copied().collect();
        let held = self.sessions.values().flat_map(Session::levels);
        keys.extend(held.map(|lock| lock.key));
        keys.sort_unstable();
        keys.dedup();
        !keys.contains(&key) && keys.len() >= self.capacity
    }

    pub(super) fn session(&mut self, pid: Pid) -> &mut Session {
        self.sessions.get_mut(&pid).expect("the session is alive")
    }
}
