//! What a seed is to play.

use std::time::Duration;

use crate::lock_manager::options::{LockManagerOptions, NoLockBackend};
use crate::session::TokenSource;

/// What can go wrong, each once in so many chances; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Faults {
    /// A session ends, at any time.
    pub(super) terminated: u32,
    /// A round fails in its midst.
    pub(super) failed: u32,
    /// A round runs, and its answer is lost with the session.
    pub(super) lost: u32,
    /// A round is answered too late, or never.
    pub(super) silent: u32,
    /// No connection can be had.
    pub(super) unopened: u32,
}

#[derive(Clone, Debug)]
pub(in super::super) struct Plan {
    pub(super) seed: u64,
    pub(super) lockers: Vec<LockManagerOptions>,
    pub(super) keys: i64,
    pub(super) tasks: u32,
    pub(super) faults: Faults,
    pub(super) without_locks: bool,
    /// The sequence of the tokens is no good.
    pub(super) unfit: bool,
    /// The first locker is shut down in the midst.
    pub(super) shut_down: bool,
    /// Everybody wants the one key alone and polls for it until they have it, and new ones come all the time.
    pub(super) crowd: bool,
}

pub(super) const KEEP_ALIVE: Duration = Duration::from_millis(10);

impl Plan {
    pub(in super::super) fn of(seed: u64, faulty: bool) -> Self {
        let source = match seed % 4 {
            0 | 1 => TokenSource::TransactionId,
            _ => TokenSource::Sequence("fencing".into()),
        };
        let policy = if seed % 16 < 8 {
            NoLockBackend::InProcess
        } else {
            NoLockBackend::NoOp
        };
        let options = [
            LockManagerOptions::new(),
            LockManagerOptions::new()
                .max_sessions(3)
                .max_waiting_sessions(2),
            LockManagerOptions::new().hand_off_limit(3, Duration::from_millis(5)),
            LockManagerOptions::new().hand_off_limit(0, Duration::ZERO),
        ];
        let lockers = (0..1 + seed % 3).map(|at| {
            let options = options[((at + seed / 4) % 4) as usize].clone();
            let options = options
                .fencing_tokens(source.clone())
                .keep_alive(KEEP_ALIVE);
            options.on_no_lock_backend(policy)
        });
        let faults = Faults {
            terminated: 300,
            failed: 20,
            lost: 150,
            silent: 200,
            unopened: 10,
        };
        Self {
            seed,
            lockers: lockers.collect(),
            keys: 1 + i64::try_from(seed % 7).expect("a small number"),
            tasks: 200,
            faults: if faulty { faults } else { Faults::default() },
            without_locks: seed % 8 == 7,
            unfit: seed % 4 == 3,
            shut_down: seed % 5 == 4,
            crowd: false,
        }
    }

    /// Processes that have always somebody who wants the same key.
    pub(in super::super) fn crowd(seed: u64, lockers: Vec<LockManagerOptions>, tasks: u32) -> Self {
        Self {
            lockers,
            keys: 1,
            tasks,
            without_locks: false,
            shut_down: false,
            crowd: true,
            ..Self::of(seed, false)
        }
    }
}
