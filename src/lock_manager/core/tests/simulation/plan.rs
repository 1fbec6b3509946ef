//! Plan of a simulation, derived from its seed.

use std::time::Duration;

use crate::lock_manager::options::{LockManagerOptions, NoLockBackend};
use crate::session::TokenSource;

/// Probability of each fault as one in so many; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Faults {
    /// A session is terminated.
    pub(super) terminated: u32,
    /// A batch fails at one of its operations.
    pub(super) failed: u32,
    /// A batch is executed, and its reply is lost with the session.
    pub(super) lost: u32,
    /// A reply arrives late or never.
    pub(super) silent: u32,
    /// No connection can be checked out.
    pub(super) open_failed: u32,
    /// A pooler sends a statement to another session.
    pub(super) exchanged: u32,
}

/// End of the first lock manager during the run.
#[derive(Clone, Copy, Debug)]
pub(super) enum EarlyEnd {
    ShutDown,
    Close,
    PoolClosed,
}

#[derive(Clone, Debug)]
pub(in super::super) struct Plan {
    pub(super) seed: u64,
    pub(super) managers: Vec<LockManagerOptions>,
    pub(super) keys: i64,
    pub(super) tasks: u32,
    pub(super) faults: Faults,
    pub(super) no_locks: bool,
    /// The sequence of the tokens has a cache.
    pub(super) bad_sequence: bool,
    pub(super) early_end: Option<EarlyEnd>,
    /// The pools are blocking ones.
    pub(super) blocking: bool,
    /// All tasks poll for one key in exclusive mode, and new tasks start all the time.
    pub(super) single_hot_key: bool,
}

pub(super) const KEEP_ALIVE: Duration = Duration::from_millis(10);

pub(super) const CONNECTION_CHECK_INTERVAL: Duration = Duration::from_millis(1);

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
        let managers = (0..1 + seed % 3).map(|at| {
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
            open_failed: 10,
            exchanged: if seed % 6 == 1 { 200 } else { 0 },
        };
        let early_end = match seed % 10 {
            4 | 9 => Some(EarlyEnd::ShutDown),
            2 => Some(EarlyEnd::Close),
            7 => Some(EarlyEnd::PoolClosed),
            _ => None,
        };
        Self {
            seed,
            managers: managers.collect(),
            keys: 1 + i64::try_from(seed % 7).expect("a small number"),
            tasks: 200,
            faults: if faulty { faults } else { Faults::default() },
            no_locks: seed % 8 == 7,
            bad_sequence: seed % 4 == 3,
            early_end,
            blocking: seed % 9 == 5,
            single_hot_key: false,
        }
    }

    /// Returns a plan in which every process always has a waiter for the same key.
    pub(in super::super) fn single_hot_key(
        seed: u64,
        managers: Vec<LockManagerOptions>,
        tasks: u32,
    ) -> Self {
        Self {
            managers,
            keys: 1,
            tasks,
            no_locks: false,
            early_end: None,
            blocking: false,
            single_hot_key: true,
            ..Self::of(seed, false)
        }
    }
}
