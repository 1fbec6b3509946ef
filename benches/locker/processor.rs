//! One processor for everything.

use std::path::Path;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread, the threads that it starts and the private server's new sessions on one processor, until this is dropped.
///
/// With two, the scheduler decides which of two sessions shares the client's, and wakes the other across: the same statement takes a
/// quarter of the time or four times as long, for as long as it likes, whatever is compared.
pub(crate) struct OneProcessor {
    before: [(Option<Pid>, CpuSet); 2],
}

impl OneProcessor {
    /// `None` where there is no private server, or it may not be moved.
    pub(crate) fn take() -> Option<Self> {
        let directory = std::env::var_os("ADVISORY_LOCKING_PGDATA")?;
        let file = std::fs::read_to_string(Path::new(&directory).join("postmaster.pid")).ok()?;
        let server = Some(Pid::from_raw(file.lines().next()?.parse().ok()?)?);
        let all = sched_getaffinity(None).ok()?;
        let last = (0..CpuSet::MAX_CPU).rfind(|at| all.is_set(*at))?;
        let mut one = CpuSet::new();
        one.set(last);
        let before = [(server, sched_getaffinity(server).ok()?), (None, all)];
        for (process, _) in before {
            sched_setaffinity(process, &one).ok()?;
        }
        Some(Self { before })
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        for (process, before) in &self.before {
            sched_setaffinity(*process, before).expect("they were there before");
        }
    }
}
