//! What all share: the server, the time, the lines to it, and what clients believe.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use advisory_locking::LockMode;

use crate::belief::Belief;
use crate::line::Line;
use crate::model::{Lock, Pid, Server};

pub(crate) struct State {
    pub(crate) server: Server,
    pub(crate) rng: fastrand::Rng,
    base: Instant,
    pub(crate) elapsed: Duration,
    pub(crate) lines: Vec<Line>,
    /// Sessions that a pooler keeps, and that no client speaks to any more.
    pub(crate) strays: Vec<Pid>,
    pub(crate) beliefs: Vec<Belief>,
    beliefs_ever: u64,
    pub(crate) runnable: Vec<bool>,
    /// When a client's pause is over.
    pub(crate) timers: Vec<Option<Duration>>,
    /// Whose call is to be dropped.
    pub(crate) drops: Vec<bool>,
    /// Who is in a call that can be dropped.
    pub(crate) in_call: Vec<bool>,
    pub(crate) met: crate::met::Met,
    pub(crate) traces: bool,
}

#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    pub(crate) fn new(seed: u64, clients: usize, traces: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            server: Server::default(),
            rng: fastrand::Rng::with_seed(seed),
            base: Instant::now(),
            elapsed: Duration::ZERO,
            lines: Vec::new(),
            strays: Vec::new(),
            beliefs: Vec::new(),
            beliefs_ever: 0,
            runnable: vec![true; clients],
            timers: vec![None; clients],
            drops: vec![false; clients],
            in_call: vec![false; clients],
            met: crate::met::Met::default(),
            traces,
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn now(&self) -> Instant {
        self.base + self.elapsed
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.traces {
            println!("{:>9.3?} {}", self.elapsed, what());
        }
    }

    pub(crate) fn believe(&mut self, mut belief: Belief) -> u64 {
        self.beliefs_ever += 1;
        belief.number = self.beliefs_ever;
        belief.lost = !self.server.is_alive(belief.pid);
        self.trace(|| format!("{belief:?}"));
        self.beliefs.push(belief);
        self.met.granted += 1;
        self.beliefs_ever
    }

    /// What became of a belief until now.
    pub(crate) fn forget(&mut self, number: u64) -> Option<Belief> {
        let index = self
            .beliefs
            .iter()
            .position(|belief| belief.number == number)?;
        Some(self.beliefs.remove(index))
    }

    /// What must be true at every step.
    pub(crate) fn check(&mut self) {
        for belief in &mut self.beliefs {
            belief.lost |= !self.server.is_alive(belief.pid);
        }
        let alive: Vec<_> = self.beliefs.iter().filter(|belief| !belief.lost).collect();
        for (index, one) in alive.iter().enumerate() {
            // Nothing of an aborted transaction is ever seen by others.
            if one.in_transaction && self.server.is_aborted(one.pid) {
                continue;
            }
            let lock = Lock {
                key: one.key,
                mode: one.mode,
            };
            assert!(
                self.server.holds(one.pid, lock),
                "held by belief alone: {one:?}"
            );
            for other in &alive[index + 1..] {
                let conflict = one.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive;
                let apart = one.key != other.key || one.line == other.line || !conflict;
                let aborted = other.in_transaction && self.server.is_aborted(other.pid);
                assert!(apart || aborted, "two at once: {one:?} {other:?}");
            }
        }
    }
}
