//! The CPU affinity of the clients and the server.

use std::path::Path;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs of the clients and the server.
#[derive(Clone, Copy)]
pub(crate) enum CpuPlacement {
    /// One CPU for all: the sum of their work is compared.
    Together,
    /// One CPU each, as with two machines: the time that a client waits is compared.
    Apart,
}

impl CpuPlacement {
    pub(crate) const ALL: [Self; 2] = [Self::Together, Self::Apart];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Together => "on one processor",
            Self::Apart => "on a processor each",
        }
    }
}

/// Pins this thread, the threads that it starts and new sessions of the private server to CPUs.
///
/// Without it the scheduler decides which of two sessions shares the CPU of the client. The same
/// statement takes a quarter of the time or four times as long, whatever is compared.
pub(crate) struct CpuPin {
    before: [(Option<Pid>, CpuSet); 2],
}

impl CpuPin {
    /// Returns `None` without a private server, without permission, or without a second CPU for
    /// [`Apart`](CpuPlacement::Apart).
    pub(crate) fn pin(placement: CpuPlacement) -> Option<Self> {
        let directory = std::env::var_os("ADVISORY_LOCKING_PGDATA")?;
        let file = std::fs::read_to_string(Path::new(&directory).join("postmaster.pid")).ok()?;
        let server = Some(Pid::from_raw(file.lines().next()?.parse().ok()?)?);
        let all = sched_getaffinity(None).ok()?;
        let mut there = (0..CpuSet::MAX_CPU).rev().filter(|at| all.is_set(*at));
        let last = there.next()?;
        let servers = match placement {
            CpuPlacement::Together => last,
            CpuPlacement::Apart => there.next()?,
        };
        let before = [(server, sched_getaffinity(server).ok()?), (None, all)];
        for ((process, _), processor) in before.iter().zip([servers, last]) {
            let mut one = CpuSet::new();
            one.set(processor);
            sched_setaffinity(*process, &one).ok()?;
        }
        Some(Self { before })
    }
}

impl Drop for CpuPin {
    fn drop(&mut self) {
        for (process, before) in &self.before {
            sched_setaffinity(*process, before).expect("the affinity was valid before");
        }
    }
}
