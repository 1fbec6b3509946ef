//! Supervision of the command: signals, the session of the lock, the end.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, getpgrp, kill_process, kill_process_group, test_kill_process_group,
};
use rustix::termios::tcgetpgrp;
use tokio::process::Child;
use tokio::time::{Instant, sleep, sleep_until};

use super::descendants::Descendants;
use super::{Program, Signals};
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::message;

/// Pause between two checks that the process group has ended.
const GROUP_CHECK_PAUSE: Duration = Duration::from_millis(20);

/// Two signals within this time are one request. systemd sends TERM to each process of a service,
/// and a surrounding `run` passes it on to this program once more.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// Returns `true` if a process is in the group.
fn has_processes(group: Pid) -> bool {
    is_of_processes(test_kill_process_group(group))
}

/// Returns `true` if processes are the reason of this result of a signal. The system refuses a
/// signal to a process of another user, such as one that `sudo` has started.
fn is_of_processes(result: rustix::io::Result<()>) -> bool {
    result != Err(rustix::io::Errno::SRCH)
}

/// Options of the supervision.
#[derive(Debug)]
pub(crate) struct Supervision {
    /// Environment variables of the command. `None`: the command does not have the variable.
    pub(crate) variables: Vec<(&'static str, Option<String>)>,
    /// The descriptor of the lock, without CLOEXEC. `None`: the command does not inherit it.
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) foreground: bool,
    pub(crate) wait_for_descendants: bool,
    pub(crate) kill_after: Duration,
}

/// End of the command.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    /// The lock was lost while the command ran.
    pub(crate) was_lost: bool,
    /// Processes that the command started still run, and have the descriptor of the lock.
    pub(crate) has_descendants: bool,
}

impl End {
    /// Returns the exit code of the command, or 128 and the number of its signal. If this program
    /// has received the signal, too, it ends by it.
    pub(crate) async fn code(&self, signals: &mut Signals) -> Code {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => Code(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, Some(signal)) => signals.end_by(signal).await,
            (None, None) => Code(u8::MAX),
        }
    }
}

/// Runs a program to its end. `loss` is ready if the lock is lost.
pub(crate) async fn supervise(
    program: &Program,
    supervision: Supervision,
    signals: &mut Signals,
    loss: impl Future<Output = String>,
) -> Result<End, Failure> {
    let problem = |error: io::Error| {
        Failure::new(Code::OUTPUT, format_args!("cannot create a pipe: {error}"))
    };
    let mut inherited = Vec::new();
    let mut descendants = None;
    if let Some(socket) = supervision.socket {
        let (reader, writer) = Descendants::pipe().map_err(problem)?;
        descendants = Some(reader);
        inherited.extend([socket, writer]);
    }
    let own_group = !supervision.foreground;
    let mut child = program.start(&supervision.variables, inherited, own_group)?;
    let mut target = Target::of(&child, own_group);

    let mut loss = Box::pin(loss);
    let mut was_lost = false;
    let mut kill_at: Option<Instant> = None;
    let mut is_killed = false;
    let mut end_requested: Option<Instant> = None;
    let mut status: Option<ExitStatus> = None;
    loop {
        let descendants_end = async {
            match &descendants {
                Some(descendants) => descendants.end().await,
                None => pending().await,
            }
        };
        let kill_time = async {
            match kill_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            ended = child.wait(), if status.is_none() => {
                let ended = ended.map_err(|error| {
                    Failure::new(Code::OUTPUT, format_args!("cannot wait for the command: {error}"))
                })?;
                status = Some(ended);
                target.command_ended();
                let live = descendants.as_ref().is_some_and(Descendants::live);
                let waits = if was_lost && own_group {
                    // A process that nothing reaps stays in its group. Process 1 of a container
                    // may be this program, or one that reaps none.
                    !is_killed
                } else {
                    live && supervision.wait_for_descendants
                };
                if !waits {
                    return Ok(End { status: ended, was_lost, has_descendants: live });
                }
            }
            // The rest of the group works without the lock, so it gets the same time to end.
            () = target.group_end(), if status.is_some() && was_lost && own_group => {
                if let Some(status) = status {
                    return Ok(End { status, was_lost, has_descendants: false });
                }
            }
            () = descendants_end, if status.is_some() && !(was_lost && own_group) => {
                if let Some(status) = status {
                    return Ok(End { status, was_lost, has_descendants: false });
                }
            }
            signal = signals.next() => {
                // The command handles an INT of the terminal in its own way.
                let counts = status.is_some() || !target.has_it_from_terminal(signal);
                let is_end = signal == Signal::TERM || (signal == Signal::INT && counts);
                let is_later = |first: Instant| first.elapsed() >= ONE_REQUEST;
                let is_second = is_end && end_requested.is_some_and(is_later);
                if is_end {
                    end_requested.get_or_insert_with(Instant::now);
                }
                target.send(if is_second { Signal::KILL } else { signal });
                // No process is left that the signal could end.
                if let Some(status) = status.filter(|_| is_end && !target.lives()) {
                    return Ok(End { status, was_lost, has_descendants: true });
                }
            }
            reason = &mut loss, if !was_lost => {
                message(&format!("lock lost: {reason}; the command is ended"));
                was_lost = true;
                target.send(Signal::TERM);
                // A time out of reach is no limit.
                kill_at = Instant::now().checked_add(supervision.kill_after);
            }
            () = kill_time => {
                kill_at = None;
                is_killed = true;
                target.send(Signal::KILL);
                if let Some(status) = status.filter(|_| own_group) {
                    return Ok(End { status, was_lost, has_descendants: false });
                }
            }
        }
    }
}

/// Returns `true` if this program is in the group to which its terminal sends INT and QUIT. A job
/// of cron has no terminal.
fn is_at_terminal() -> bool {
    let group = File::open("/dev/tty").map(tcgetpgrp);
    group.is_ok_and(|group| group == Ok(getpgrp()))
}

/// The processes that receive signals.
struct Target {
    /// Process id of the command, also of its group. `None` if it may be that of another process.
    pid: Option<Pid>,
    is_group: bool,
}

impl Target {
    fn of(child: &Child, is_group: bool) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            pid: pid.and_then(Pid::from_raw),
            is_group,
        }
    }

    /// Returns `true` if the terminal sends the signal to the command itself.
    fn has_it_from_terminal(&self, signal: Signal) -> bool {
        !self.is_group && [Signal::INT, Signal::QUIT].contains(&signal) && is_at_terminal()
    }

    /// Notes the end of the command. Its number stays that of the group while a process is in it.
    fn command_ended(&mut self) {
        let is_group = self.is_group;
        self.pid = self.pid.filter(|pid| is_group && has_processes(*pid));
    }

    /// Returns `true` while a process is left that a signal may end: of the group, or the command
    /// in the foreground.
    fn lives(&self) -> bool {
        let lives = |pid: Pid| !self.is_group || test_kill_process_group(pid).is_ok();
        self.pid.is_some_and(lives)
    }

    /// Waits for the end of all processes in the group.
    async fn group_end(&self) {
        while self.pid.is_some_and(has_processes) {
            sleep(GROUP_CHECK_PAUSE).await;
        }
    }

    /// Sends a signal. The processes may have ended already.
    fn send(&self, signal: Signal) {
        let Some(pid) = self.pid else { return };
        // A stopped process handles a signal only when it goes on.
        let ends = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT].contains(&signal);
        let then = ends.then_some(Signal::CONT);
        for signal in [Some(signal), then].into_iter().flatten() {
            if self.is_group {
                let _ = kill_process_group(pid, signal);
            } else if !self.has_it_from_terminal(signal) {
                let _ = kill_process(pid, signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use rustix::io::Errno;

    use super::*;

    /// The system may give the number to another group.
    #[test]
    fn empty_group_is_sent_no_signal() {
        let mut command = Command::new("true");
        let mut child = command.process_group(0).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let mut target = Target {
            pid,
            is_group: true,
        };
        assert!(child.wait().unwrap().success());
        target.command_ended();
        assert_eq!(target.pid, None);
    }

    #[test]
    fn process_of_another_user_is_awaited() {
        for (result, expected) in [
            (Ok(()), true),
            (Err(Errno::PERM), true),
            (Err(Errno::SRCH), false),
        ] {
            assert_eq!(is_of_processes(result), expected, "{result:?}");
        }
    }
}
