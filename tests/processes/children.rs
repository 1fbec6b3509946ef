//! Child processes: starts, kills, stops and joins them. Kills the rest on drop.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{ChildArgs, ClientKind};

/// The first argument of a child.
pub(crate) const CHILD: &str = "child-of-the-processes-test";

/// Bound for the exit of a child: longer than any call, also on a slow machine.
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Children {
    directory: PathBuf,
    seed: u64,
    running: Vec<Running>,
    /// Kinds and record files of all processes, by process number.
    records: Vec<(ClientKind, PathBuf)>,
}

struct Running {
    number: usize,
    child: Child,
}

impl Children {
    /// Starts `count` processes, of each kind in turn.
    pub(crate) fn start(count: usize, directory: &Path, seed: u64) -> Self {
        let mut children = Self {
            directory: directory.to_owned(),
            seed,
            running: Vec::new(),
            records: Vec::new(),
        };
        for slot in 0..count {
            let running = children.spawn(slot);
            children.running.push(running);
        }
        children
    }

    fn spawn(&mut self, slot: usize) -> Running {
        let number = self.records.len();
        let record = self.directory.join(format!("record-{number}"));
        let kind = ClientKind::ALL[slot % ClientKind::ALL.len()];
        let args = ChildArgs {
            kind,
            process: number,
            directory: self.directory.clone(),
            record: record.clone(),
            // Each client of each process has a different seed.
            seed: self
                .seed
                .wrapping_add(1_000 * u64::try_from(number).unwrap()),
        };
        File::create_new(&record).unwrap();
        self.records.push((kind, record));
        let child = Command::new(std::env::current_exe().unwrap())
            .arg(CHILD)
            .args(args.to_arguments())
            // The child ends when this pipe is closed, so also when this process dies.
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Running { number, child }
    }

    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }

    /// Kills a process and starts another in its slot. Returns the number of the killed one.
    pub(crate) fn replace(&mut self, slot: usize) -> usize {
        let Running { number, child } = &mut self.running[slot];
        let number = *number;
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "a child has ended by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let running = self.spawn(slot);
        self.running[slot] = running;
        number
    }

    pub(crate) fn stop(&self, slot: usize, pause: Duration) {
        let pid = Pid::from_child(&self.running[slot].child);
        kill_process(pid, Signal::STOP).unwrap();
        thread::sleep(pause);
        kill_process(pid, Signal::CONT).unwrap();
    }

    /// Waits until every process has ended its calls. Returns the kinds and record files of all
    /// processes.
    pub(crate) fn end(mut self) -> Vec<(ClientKind, PathBuf)> {
        for Running { child, .. } in &mut self.running {
            drop(child.stdin.take());
        }
        for Running { child, number } in &mut self.running {
            let status = join(child).unwrap_or_else(|| panic!("child {number} hangs"));
            assert!(status.success(), "child {number} ended with {status}");
        }
        std::mem::take(&mut self.records)
    }
}

fn join(child: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < EXIT_TIMEOUT {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

impl Drop for Children {
    /// Kills the children of a failed test.
    fn drop(&mut self) {
        for Running { child, .. } in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
