//! What is true at every moment.

use std::collections::HashMap;
use std::time::Instant;

use super::plan::KEEP_ALIVE;
use super::{Task, World};
use crate::key::RawLockKey;
use crate::lock_manager::core::{LockGrant, SessionId};
use crate::options::LockMode;

/// How often a process has handed a lock on, and since when others had no chance to get it.
#[derive(Debug)]
pub(super) struct Turns {
    since: Instant,
    count: u32,
}

impl World {
    pub(super) fn check(&mut self) {
        self.check_exclusion();
        self.check_detection();
    }

    /// An exclusive lock is one task's, among those whose sessions live.
    fn check_exclusion(&self) {
        let mut holders: HashMap<(RawLockKey, Option<usize>), Vec<LockMode>> = HashMap::new();
        for task in self.tasks.values() {
            let Some(hold) = task.hold.filter(|_| !task.given_back && !task.lost) else {
                continue;
            };
            let (mode, process) = (task.mode, task.process);
            if hold.session == Some(SessionId::IN_PROCESS) {
                let holders = holders.entry((hold.key, Some(process)));
                holders.or_default().push(mode);
            } else if self.is_held(task, hold) {
                holders.entry((hold.key, None)).or_default().push(mode);
            }
        }
        for (key, modes) in holders {
            let alone = modes.len() == 1 || !modes.contains(&LockMode::Exclusive);
            assert!(alone, "{key:?} is held {modes:?}");
        }
    }

    /// Whether the server has it so.
    pub(super) fn is_held(&self, task: &Task, hold: LockGrant) -> bool {
        let session = hold.session.map(|session| (task.process, session));
        let connection = session.and_then(|session| self.connections.get(&session));
        connection.is_some_and(|connection| self.server.holds(connection.pid, hold.key, task.mode))
    }

    /// A session that has fallen silent is given up in time.
    fn check_detection(&mut self) {
        for ((process, session), connection) in &mut self.connections {
            // A wait says nothing by nature.
            if connection.waits.is_some() {
                continue;
            }
            if connection.silent.is_none() && !self.server.is_alive(connection.pid) {
                connection.silent = Some(self.now);
            }
            let late = connection
                .silent
                .is_some_and(|since| self.now - since > 2 * KEEP_ALIVE);
            assert!(!late, "{process} {session:?} is silent since long");
        }
    }

    /// The lock was granted once more, before others had a chance to get it.
    pub(super) fn check_turn(&mut self, process: usize, key: RawLockKey) {
        let settings = &self.plan.lockers[process].0;
        let now = self.now;
        let turns = self.turns.entry((process, key)).or_insert(Turns {
            since: now,
            count: 0,
        });
        turns.count += 1;
        if turns.count > 1 {
            self.met.count("handed on");
            assert!(
                turns.count <= settings.max_hand_offs,
                "{turns:?} of {settings:?}"
            );
            let held = now - turns.since;
            assert!(
                held < settings.max_hand_off_time,
                "{held:?} of {settings:?}"
            );
        }
    }

    /// Others have their chance.
    pub(super) fn reset_tenure(&mut self, process: usize, key: RawLockKey) {
        self.turns.remove(&(process, key));
    }
}
