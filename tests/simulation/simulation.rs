//! The shared state: the server, the time, the links and the claims.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use advisory_locking::LockMode;

use crate::claims::Claim;
use crate::link::Link;
use testkit::model::{Lock, Pid, Server};

pub(crate) struct State {
    pub(crate) server: Server,
    pub(crate) rng: fastrand::Rng,
    base: Instant,
    pub(crate) elapsed: Duration,
    pub(crate) links: Vec<Link>,
    /// Sessions that a pooler keeps without a client.
    pub(crate) detached_sessions: Vec<Pid>,
    pub(crate) claims: Vec<Claim>,
    claims_made: u64,
    pub(crate) runnable: Vec<bool>,
    /// End of each client's pause.
    pub(crate) timers: Vec<Option<Duration>>,
    /// Clients whose call is to be dropped.
    pub(crate) drops: Vec<bool>,
    /// Clients in a call that can be dropped.
    pub(crate) in_call: Vec<bool>,
    pub(crate) coverage: crate::coverage::Coverage,
    pub(crate) trace_enabled: bool,
}

#[derive(Clone)]
pub(crate) struct Simulation(Arc<Mutex<State>>);

impl Simulation {
    pub(crate) fn new(seed: u64, clients: usize, trace_enabled: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            server: Server::default(),
            rng: fastrand::Rng::with_seed(seed),
            base: Instant::now(),
            elapsed: Duration::ZERO,
            links: Vec::new(),
            detached_sessions: Vec::new(),
            claims: Vec::new(),
            claims_made: 0,
            runnable: vec![true; clients],
            timers: vec![None; clients],
            drops: vec![false; clients],
            in_call: vec![false; clients],
            coverage: crate::coverage::Coverage::default(),
            trace_enabled,
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
        if self.trace_enabled {
            println!("{:>9.3?} {}", self.elapsed, what());
        }
    }

    pub(crate) fn add_claim(&mut self, mut claim: Claim) -> u64 {
        self.claims_made += 1;
        claim.number = self.claims_made;
        claim.lost = !self.server.is_alive(claim.pid);
        self.trace(|| format!("{claim:?}"));
        self.claims.push(claim);
        self.coverage.granted += 1;
        self.claims_made
    }

    /// Removes a claim, and returns its last state.
    pub(crate) fn remove_claim(&mut self, number: u64) -> Option<Claim> {
        let index = self
            .claims
            .iter()
            .position(|claim| claim.number == number)?;
        Some(self.claims.remove(index))
    }

    /// Asserts the invariants: each claim is backed by a lock, and conflicting claims do not
    /// overlap.
    pub(crate) fn check(&mut self) {
        for claim in &mut self.claims {
            claim.lost |= !self.server.is_alive(claim.pid);
        }
        let alive: Vec<_> = self.claims.iter().filter(|claim| !claim.lost).collect();
        for (index, one) in alive.iter().enumerate() {
            // An aborted transaction has no effects that others could see.
            if one.in_transaction && self.server.is_aborted(one.pid) {
                continue;
            }
            let lock = Lock {
                key: one.key,
                mode: one.mode,
            };
            assert!(
                self.server.holds(one.pid, lock),
                "a claim without a lock: {one:?}"
            );
            for other in &alive[index + 1..] {
                let conflict = one.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive;
                let apart = one.key != other.key || one.link == other.link || !conflict;
                let aborted = other.in_transaction && self.server.is_aborted(other.pid);
                assert!(apart || aborted, "two holders: {one:?} {other:?}");
            }
        }
    }
}
