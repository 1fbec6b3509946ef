//! What clients believe to hold.

use advisory_locking::{LockKey, LockMode, RawLockKey};

use crate::model::Pid;
use crate::world::World;

/// A client that thinks it holds a lock.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    pub(crate) number: u64,
    pub(crate) line: usize,
    /// The session that granted it.
    pub(crate) pid: Pid,
    pub(crate) key: RawLockKey,
    pub(crate) mode: LockMode,
    pub(crate) in_transaction: bool,
    /// The session has ended meanwhile.
    pub(crate) lost: bool,
}

/// A belief for as long as it is in scope.
pub(crate) struct Believing<'w> {
    world: &'w World,
    number: u64,
}

impl Drop for Believing<'_> {
    fn drop(&mut self) {
        self.world.state().forget(self.number);
    }
}

impl<'w> Believing<'w> {
    pub(crate) fn begin(
        world: &'w World,
        line: usize,
        key: &LockKey,
        mode: LockMode,
        in_transaction: bool,
    ) -> Self {
        let mut state = world.state();
        let pid = state.lines[line].answered_by;
        let number = state.believe(Belief {
            number: 0,
            line,
            pid,
            key: key.raw(),
            mode,
            in_transaction,
            lost: false,
        });
        drop(state);
        Self { world, number }
    }

    /// Whether the lock can be said to have been held until now.
    pub(crate) fn end(self) -> bool {
        let belief = self.world.state().forget(self.number);
        belief.is_some_and(|belief| !belief.lost)
    }
}
