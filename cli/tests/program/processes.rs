//! Processes of the system, as `/proc` shows them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use testkit::server::{eventually, fresh_number};

/// Returns an argument that no other process has: a long sleep.
pub(crate) fn fresh_sleep() -> String {
    format!("600.{}{:06}", std::process::id(), fresh_number())
}

/// Returns the processes that run `sleep` with this argument.
pub(crate) fn sleeping(argument: &str) -> Vec<u32> {
    let command = format!("sleep\0{argument}\0");
    let processes = fs::read_dir("/proc").expect("Linux").filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let found = fs::read(entry.path().join("cmdline")).ok()?;
        (found == command.as_bytes()).then_some(pid)
    });
    processes.collect()
}

/// Waits until a `sleep` with this argument runs, and returns its process id.
#[track_caller]
pub(crate) fn wait_for_sleep(argument: &str) -> u32 {
    eventually("the command runs", || !sleeping(argument).is_empty());
    sleeping(argument)[0]
}

#[track_caller]
pub(crate) fn wait_until_none_sleeps(argument: &str) {
    eventually("the command and its descendants end", || {
        sleeping(argument).is_empty()
    });
}

/// Returns `true` if a mask of a process, for example `SigIgn:`, contains a signal.
pub(crate) fn has_in_mask(pid: u32, mask: &str, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix(mask));
    let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
    mask & (1 << (signal.as_raw() - 1)) != 0
}

pub(crate) fn ignores(pid: u32, signal: Signal) -> bool {
    has_in_mask(pid, "SigIgn:", signal)
}

/// Sends a signal to a process, which may have ended.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a process id"), signal);
}
