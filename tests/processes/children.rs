//! The processes: started, killed, stopped, and joined or killed in the end, whatever happens.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Kind, Orders};

/// The first argument of a child.
pub(crate) const CHILD: &str = "child-of-the-processes-test";

/// Longer than a call lasts, on a machine that stalls.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Children {
    directory: PathBuf,
    seed: u64,
    running: Vec<Running>,
    /// Of all that ever ran, by number.
    records: Vec<PathBuf>,
}

struct Running {
    number: usize,
    child: Child,
}

impl Children {
    /// As many processes, of each kind in turn.
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
        let orders = Orders {
            kind: Kind::ALL[slot % Kind::ALL.len()],
            process: number,
            directory: self.directory.clone(),
            record: record.clone(),
            // No client of another process has it.
            seed: self
                .seed
                .wrapping_add(1_000 * u64::try_from(number).unwrap()),
        };
        File::create_new(&record).unwrap();
        self.records.push(record);
        let child = Command::new(std::env::current_exe().unwrap())
            .arg(CHILD)
            .args(orders.to_arguments())
            // It ends when this end is closed, so also when this process is gone.
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Running { number, child }
    }

    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }

    /// Kills a process and starts another in its place. The number of the one that was killed.
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

    /// Lets all of them end what they are doing, and returns the records of all that ever ran.
    pub(crate) fn end(mut self) -> Vec<PathBuf> {
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
    while began.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

impl Drop for Children {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        for Running { child, .. } in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
