//! On which processors the clients and the server are.

use std::path::Path;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the two are.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// All on one: what is compared is the work of both.
    Together,
    /// Each on one of its own, as if each had a machine: what is compared is how long one waits.
    Apart,
}

impl Place {
    pub(crate) const ALL: [Self; 2] = [Self::Together, Self::Apart];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Together => "on one processor",
            Self::Apart => "on a processor each",
        }
    }
}

/// Keeps this thread, the threads that it starts and the private server's new sessions where they are to be, until this is dropped.
///
/// Left to itself, the scheduler decides which of two sessions shares the client's processor, and wakes the other across: the same statement
/// takes a quarter of the time or four times as long, for as long as it likes, whatever is compared.
pub(crate) struct Placed {
    before: [(Option<Pid>, CpuSet); 2],
}

impl Placed {
    /// `None` where there is no private server, or it may not be moved, or there is one processor and two are wanted.
    pub(crate) fn take(place: Place) -> Option<Self> {
        let directory = std::env::var_os("ADVISORY_LOCKING_PGDATA")?;
        let file = std::fs::read_to_string(Path::new(&directory).join("postmaster.pid")).ok()?;
        let server = Some(Pid::from_raw(file.lines().next()?.parse().ok()?)?);
        let all = sched_getaffinity(None).ok()?;
        let mut there = (0..CpuSet::MAX_CPU).rev().filter(|at| all.is_set(*at));
        let last = there.next()?;
        let servers = match place {
            Place::Together => last,
            Place::Apart => there.next()?,
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

impl Drop for Placed {
    fn drop(&mut self) {
        for (process, before) in &self.before {
            sched_setaffinity(*process, before).expect("they were there before");
        }
    }
}
