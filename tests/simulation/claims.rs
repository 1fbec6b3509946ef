//! Claims: the locks that clients take for held.

use advisory_locking::{LockKey, LockMode, RawLockKey};

use crate::simulation::Simulation;
use testkit::model::Pid;

/// A lock that a client takes for held.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) number: u64,
    pub(crate) link: usize,
    /// The session that granted the lock.
    pub(crate) pid: Pid,
    pub(crate) key: RawLockKey,
    pub(crate) mode: LockMode,
    pub(crate) in_transaction: bool,
    /// The session has ended since.
    pub(crate) lost: bool,
}

/// Removes its claim when it is dropped.
pub(crate) struct ClaimGuard<'s> {
    simulation: &'s Simulation,
    number: u64,
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        self.simulation.state().remove_claim(self.number);
    }
}

impl<'s> ClaimGuard<'s> {
    pub(crate) fn begin(
        simulation: &'s Simulation,
        link: usize,
        key: &LockKey,
        mode: LockMode,
        in_transaction: bool,
    ) -> Self {
        let mut state = simulation.state();
        let pid = state.links[link].answered_by;
        let number = state.add_claim(Claim {
            number: 0,
            link,
            pid,
            key: key.raw(),
            mode,
            in_transaction,
            lost: false,
        });
        drop(state);
        Self { simulation, number }
    }

    /// Removes the claim. Returns `true` if the lock was not lost.
    pub(crate) fn end(self) -> bool {
        let claim = self.simulation.state().remove_claim(self.number);
        claim.is_some_and(|claim| !claim.lost)
    }
}
