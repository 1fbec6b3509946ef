//! Simulated server: sessions, locks with modes, wait queues, tokens.

use std::collections::{BTreeMap, VecDeque};

use crate::key::RawLockKey;
use crate::options::LockMode;
use crate::session::{
    BatchMode, BatchReply, LockBatch, LockOpKind, ServerSigns, SessionError, SqlState, TokenSource,
};

/// Lock that a session holds or waits for.
#[derive(Clone, Copy, Debug)]
struct LockEntry {
    pid: i32,
    mode: LockMode,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    pids: i32,
    alive: Vec<i32>,
    held: BTreeMap<RawLockKey, Vec<LockEntry>>,
    waiting: BTreeMap<RawLockKey, VecDeque<LockEntry>>,
    transaction: i64,
    sequence: i64,
    /// The sequence has a cache, so its numbers are not in ascending order.
    bad_sequence: bool,
}

impl Server {
    pub(super) fn new(bad_sequence: bool) -> Self {
        Self {
            bad_sequence,
            ..Self::default()
        }
    }

    pub(super) fn connect(&mut self) -> i32 {
        self.pids += 1;
        self.alive.push(self.pids);
        self.pids
    }

    pub(super) fn is_alive(&self, pid: i32) -> bool {
        self.alive.contains(&pid)
    }

    /// Ends a session and grants its locks to waiters.
    pub(super) fn terminate(&mut self, pid: i32) {
        self.alive.retain(|other| *other != pid);
        for entries in self.held.values_mut() {
            entries.retain(|entry| entry.pid != pid);
        }
        for entries in self.waiting.values_mut() {
            entries.retain(|entry| entry.pid != pid);
        }
        self.grant_waiters();
    }

    pub(super) fn sessions(&self) -> &[i32] {
        &self.alive
    }

    pub(super) fn holds(&self, pid: i32, key: RawLockKey, mode: LockMode) -> bool {
        let entries = self.held.get(&key);
        entries.is_some_and(|entries| {
            entries
                .iter()
                .any(|entry| entry.pid == pid && entry.mode == mode)
        })
    }

    pub(super) fn locks(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    fn conflicts(&self, pid: i32, key: RawLockKey, mode: LockMode) -> bool {
        let excludes = |entry: &LockEntry| {
            entry.pid != pid && (entry.mode == LockMode::Exclusive || mode == LockMode::Exclusive)
        };
        let held = self.held.get(&key).into_iter().flatten();
        let waiting = self.waiting.get(&key).into_iter().flatten();
        held.chain(waiting).any(excludes)
    }

    fn try_acquire(&mut self, pid: i32, key: RawLockKey, mode: LockMode) -> bool {
        let free = !self.conflicts(pid, key, mode);
        if free {
            self.held
                .entry(key)
                .or_default()
                .push(LockEntry { pid, mode });
        }
        free
    }

    fn release(&mut self, pid: i32, key: RawLockKey, mode: LockMode) -> bool {
        let entries = self.held.entry(key).or_default();
        let position = entries
            .iter()
            .position(|entry| entry.pid == pid && entry.mode == mode);
        if let Some(position) = position {
            entries.remove(position);
        }
        self.grant_waiters();
        position.is_some()
    }

    /// Acquires a lock, or appends to its queue.
    pub(super) fn wait(&mut self, pid: i32, key: RawLockKey, mode: LockMode) {
        if !self.try_acquire(pid, key, mode) {
            let entry = LockEntry { pid, mode };
            self.waiting.entry(key).or_default().push_back(entry);
        }
    }

    pub(super) fn leave_queue(&mut self, pid: i32, key: RawLockKey) {
        let entries = self.waiting.entry(key).or_default();
        entries.retain(|entry| entry.pid != pid);
        self.grant_waiters();
    }

    fn grant_waiters(&mut self) {
        let keys: Vec<_> = self.waiting.keys().copied().collect();
        for key in keys {
            while let Some(next) = self.waiting.get_mut(&key).and_then(VecDeque::pop_front) {
                let held = self.held.entry(key).or_default();
                let excluded = held.iter().any(|entry| {
                    entry.pid != next.pid
                        && (entry.mode == LockMode::Exclusive || next.mode == LockMode::Exclusive)
                });
                if excluded {
                    self.waiting.entry(key).or_default().push_front(next);
                    break;
                }
                held.push(next);
            }
        }
    }

    /// Runs a batch. With `fail_at`, the operation of that index fails with that SQLSTATE after the
    /// earlier ones were executed.
    pub(super) fn run(
        &mut self,
        pid: i32,
        batch: &LockBatch,
        fail_at: Option<(usize, &str)>,
    ) -> Result<BatchReply, SessionError> {
        let sequence = matches!(batch.tokens(), TokenSource::Sequence(_));
        let bad_sequence = sequence && self.bad_sequence;
        let mut answers = Vec::new();
        let mut any_issued = false;
        for (position, op) in batch.ops().iter().enumerate() {
            if let Some((_, code)) = fail_at.filter(|(at, _)| *at == position) {
                let error = SessionError::new("the model fails an operation");
                return Err(error.with_code(SqlState::new(code)));
            }
            let (key, mode) = (op.key(), op.mode());
            let (yes, issued) = match (batch.mode(), op.kind()) {
                (BatchMode::Compensate, _) => (
                    self.holds(pid, key, mode) && self.release(pid, key, mode),
                    false,
                ),
                (BatchMode::Execute, LockOpKind::Acquire { with_token }) => {
                    let granted = !(with_token && bad_sequence) && self.try_acquire(pid, key, mode);
                    (granted, granted && with_token)
                }
                (BatchMode::Execute, LockOpKind::Release) => (self.release(pid, key, mode), false),
                (BatchMode::Execute, LockOpKind::IssueToken) => {
                    assert!(
                        self.holds(pid, key, mode),
                        "a token for a lock that is not held"
                    );
                    (!bad_sequence, !bad_sequence)
                }
            };
            any_issued |= issued;
            let number = if sequence && issued {
                self.sequence += 1;
                self.sequence
            } else {
                1
            };
            answers.push(yes.then_some(number));
        }
        let token = if sequence {
            Some(i64::from(!bad_sequence))
        } else if any_issued {
            self.transaction += 1;
            Some(self.transaction)
        } else {
            None
        };
        Ok(BatchReply {
            answers: (!answers.is_empty()).then_some(answers),
            token,
            pid,
            server_signs: ServerSigns::NONE,
        })
    }
}
