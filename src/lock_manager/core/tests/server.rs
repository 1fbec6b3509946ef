//! A model of the server: sessions, locks with levels, those who wait, tokens.

use std::collections::{BTreeMap, VecDeque};

use crate::key::RawLockKey;
use crate::options::LockMode;
use crate::session::{
    BatchMode, BatchReply, LockBatch, LockOpKind, SessionError, SqlState, TokenSource,
};

/// A lock somebody has, or waits for.
#[derive(Clone, Copy, Debug)]
struct Claim {
    pid: i32,
    mode: LockMode,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    pids: i32,
    alive: Vec<i32>,
    held: BTreeMap<RawLockKey, Vec<Claim>>,
    waiting: BTreeMap<RawLockKey, VecDeque<Claim>>,
    transaction: i64,
    sequence: i64,
    /// The sequence has a cache, so its numbers do not only grow.
    unfit: bool,
}

impl Server {
    pub(super) fn new(unfit: bool) -> Self {
        Self {
            unfit,
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

    /// Ends a session; those who wait for what it had are granted it.
    pub(super) fn terminate(&mut self, pid: i32) {
        self.alive.retain(|other| *other != pid);
        for claims in self.held.values_mut() {
            claims.retain(|claim| claim.pid != pid);
        }
        for claims in self.waiting.values_mut() {
            claims.retain(|claim| claim.pid != pid);
        }
        self.grant_waiting();
    }

    pub(super) fn sessions(&self) -> &[i32] {
        &self.alive
    }

    pub(super) fn holds(&self, pid: i32, key: RawLockKey, mode: LockMode) -> bool {
        let claims = self.held.get(&key);
        claims.is_some_and(|claims| {
            claims
                .iter()
                .any(|claim| claim.pid == pid && claim.mode == mode)
        })
    }

    pub(super) fn locks(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    fn conflicts(&self, pid: i32, key: RawLockKey, mode: LockMode) -> bool {
        let excludes = |claim: &Claim| {
            claim.pid != pid && (claim.mode == LockMode::Exclusive || mode == LockMode::Exclusive)
        };
        let held = self.held.get(&key).into_iter().flatten();
        let waiting = self.waiting.get(&key).into_iter().flatten();
        held.chain(waiting).any(excludes)
    }

    fn take(&mut self, pid: i32, key: RawLockKey, mode: LockMode) -> bool {
        let free = !self.conflicts(pid, key, mode);
        if free {
            self.held.entry(key).or_default().push(Claim { pid, mode });
        }
        free
    }

    fn give_back(&mut self, pid: i32, key: RawLockKey, mode: LockMode) -> bool {
        let claims = self.held.entry(key).or_default();
        let place = claims
            .iter()
            .position(|claim| claim.pid == pid && claim.mode == mode);
        if let Some(place) = place {
            claims.remove(place);
        }
        self.grant_waiting();
        place.is_some()
    }

    /// Queues for a lock, or takes it.
    pub(super) fn wait(&mut self, pid: i32, key: RawLockKey, mode: LockMode) {
        if !self.take(pid, key, mode) {
            let claim = Claim { pid, mode };
            self.waiting.entry(key).or_default().push_back(claim);
        }
    }

    pub(super) fn leave_queue(&mut self, pid: i32, key: RawLockKey) {
        let claims = self.waiting.entry(key).or_default();
        claims.retain(|claim| claim.pid != pid);
        self.grant_waiting();
    }

    fn grant_waiting(&mut self) {
        let keys: Vec<_> = self.waiting.keys().copied().collect();
        for key in keys {
            while let Some(next) = self.waiting.get_mut(&key).and_then(VecDeque::pop_front) {
                let held = self.held.entry(key).or_default();
                let excluded = held.iter().any(|claim| {
                    claim.pid != next.pid
                        && (claim.mode == LockMode::Exclusive || next.mode == LockMode::Exclusive)
                });
                if excluded {
                    self.waiting.entry(key).or_default().push_front(next);
                    break;
                }
                held.push(next);
            }
        }
    }

    /// Runs a round; with `fail_at`, the step of that number fails, and those before it have been done.
    pub(super) fn run(
        &mut self,
        pid: i32,
        round: &LockBatch,
        fail_at: Option<usize>,
    ) -> Result<BatchReply, SessionError> {
        let sequence = matches!(round.tokens(), TokenSource::Sequence(_));
        let unfit = sequence && self.unfit;
        let mut answers = Vec::new();
        let mut draws = false;
        for (place, step) in round.ops().iter().enumerate() {
            if fail_at == Some(place) {
                let code = SqlState::new("53200");
                return Err(SessionError::new("the model's lock table is full").with_code(code));
            }
            let (key, mode) = (step.key(), step.mode());
            let (yes, drawn) = match (round.mode(), step.kind()) {
                (BatchMode::Compensate, _) => (
                    self.holds(pid, key, mode) && self.give_back(pid, key, mode),
                    false,
                ),
                (BatchMode::Execute, LockOpKind::Acquire { with_token }) => {
                    let granted = !(with_token && unfit) && self.take(pid, key, mode);
                    (granted, granted && with_token)
                }
                (BatchMode::Execute, LockOpKind::Release) => {
                    (self.give_back(pid, key, mode), false)
                }
                (BatchMode::Execute, LockOpKind::IssueToken) => {
                    assert!(self.holds(pid, key, mode), "a token for a lock not held");
                    (!unfit, !unfit)
                }
            };
            draws |= drawn;
            let number = if sequence && drawn {
                self.sequence += 1;
                self.sequence
            } else {
                1
            };
            answers.push(yes.then_some(number));
        }
        let token = if sequence {
            Some(i64::from(!unfit))
        } else if draws {
            self.transaction += 1;
            Some(self.transaction)
        } else {
            None
        };
        Ok(BatchReply {
            answers: (!answers.is_empty()).then_some(answers),
            token,
            pid,
        })
    }
}
