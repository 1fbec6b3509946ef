//! Invariants that hold after every event.

use std::collections::HashMap;
use std::time::Instant;

use super::plan::KEEP_ALIVE;
use super::{Simulation, Task};
use crate::key::RawLockKey;
use crate::lock_manager::core::{LockGrant, SessionId};
use crate::options::LockMode;

/// Number of grants in a process, and the time since which others had no chance to acquire the key.
#[derive(Debug)]
pub(super) struct HandOffs {
    since: Instant,
    count: u32,
}

impl Simulation {
    pub(super) fn check(&mut self) {
        self.check_exclusion();
        self.check_deadlines();
        self.check_detection();
    }

    /// Checks that an exclusive lock has one holder, among tasks whose sessions live.
    fn check_exclusion(&self) {
        let mut holders: HashMap<(RawLockKey, Option<usize>), Vec<LockMode>> = HashMap::new();
        for task in self.tasks.values() {
            let Some(grant) = task.grant.filter(|_| !task.released && !task.lost) else {
                continue;
            };
            let (mode, process) = (task.mode, task.process);
            if grant.session == Some(SessionId::IN_PROCESS) {
                let holders = holders.entry((grant.key, Some(process)));
                holders.or_default().push(mode);
            } else if self.is_held(task, grant) {
                holders.entry((grant.key, None)).or_default().push(mode);
            }
        }
        for (key, modes) in holders {
            let alone = modes.len() == 1 || !modes.contains(&LockMode::Exclusive);
            assert!(alone, "{key:?} is held {modes:?}");
        }
    }

    /// Returns whether the server shows the lock as held.
    pub(super) fn is_held(&self, task: &Task, grant: LockGrant) -> bool {
        let session = grant.session.map(|session| (task.process, session));
        let connection = session.and_then(|session| self.connections.get(&session));
        connection.is_some_and(|connection| self.server.holds(connection.pid, grant.key, task.mode))
    }

    /// Checks that a silent session is detected in time.
    fn check_detection(&mut self) {
        for ((process, session), connection) in &mut self.connections {
            // A session that waits sends no replies.
            if connection.waits_for.is_some() {
                continue;
            }
            if connection.silent.is_none() && !self.server.is_alive(connection.pid) {
                connection.silent = Some(self.now);
            }
            let late = connection
                .silent
                .is_some_and(|since| self.now - since > 2 * KEEP_ALIVE);
            assert!(!late, "{process} {session:?} is silent for too long");
        }
    }

    /// Checks the hand-off limit at a further grant in the same process.
    pub(super) fn check_hand_off_limit(&mut self, process: usize, key: RawLockKey) {
        let options = &self.plan.managers[process];
        let now = self.now;
        let hand_offs = self.hand_offs.entry((process, key)).or_insert(HandOffs {
            since: now,
            count: 0,
        });
        hand_offs.count += 1;
        if hand_offs.count > 1 {
            self.coverage.count("handed off");
            assert!(
                hand_offs.count <= options.max_hand_offs,
                "{hand_offs:?} of {options:?}"
            );
            let held = now - hand_offs.since;
            assert!(held < options.max_hand_off_time, "{held:?} of {options:?}");
        }
    }

    /// Records that other processes have a chance to acquire the key.
    pub(super) fn reset_hand_offs(&mut self, process: usize, key: RawLockKey) {
        self.hand_offs.remove(&(process, key));
    }
}
