//! The program as a child process.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::Signal;
use testkit::server::{eventually, fresh_name, url};

use crate::processes;

/// Result of a program that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit code as a shell shows it: 128 and the number of a signal that ended the program.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn assert_stderr(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "{text:?}: {self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn assert_stdout(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "{text:?}: {self:?}");
        self
    }
}

/// Returns the program with arguments, and with no settings of the caller but the test server.
///
/// The tests may run as a background job of a shell, which ignores INT and QUIT. The program would
/// keep that, so `env` sets the default.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", env!("CARGO_BIN_EXE_advisory-lock")]);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env("DATABASE_URL", url())
        .env("HOME", "/nonexistent")
        // `run -c` starts the user's shell, which may be any.
        .env("SHELL", "/bin/sh")
        .env_remove("ADVISORY_LOCK_HELD")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Done {
    run_command(program(arguments))
}

/// Runs the program again until it shows a text. An error names the holders only if their report
/// takes less than 250 ms, and a loaded machine may need longer.
pub(crate) fn run_until_shown(arguments: &[&str], text: &str) -> Done {
    let mut done = run(arguments);
    for _ in 0..20 {
        if done.stdout.contains(text) || done.stderr.contains(text) {
            break;
        }
        done = run(arguments);
    }
    done
}

/// Runs the program with another server.
pub(crate) fn run_on(url: &str, arguments: &[&str]) -> Done {
    let mut command = program(arguments);
    command.env("DATABASE_URL", url);
    run_command(command)
}

fn shown(status: ExitStatus) -> Option<i32> {
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal)
}

pub(crate) fn run_command(mut command: Command) -> Done {
    let output = command.output().expect("the program starts");
    Done {
        code: shown(output.status),
        signal: output.status.signal(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program that runs. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// The file of its standard error. A pipe would stay open in its descendants.
    stderr: PathBuf,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let stderr = std::env::temp_dir().join(fresh_name());
        let file = File::create(&stderr).unwrap();
        command.stdout(Stdio::null()).stderr(file);
        let child = command.spawn().expect("the program starts");
        Self { child, stderr }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        processes::send(self.child.id(), signal);
    }

    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until a condition is true, which the program must live to see.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, event: &str, mut condition: impl FnMut() -> bool) {
        eventually(event, || {
            let occurred = condition();
            if !occurred && !self.lives() {
                panic!("not {event}: {:?}", fs::read_to_string(&self.stderr));
            }
            occurred
        });
    }

    /// Returns `true` if the program blocks a signal. It inherits the mask of the tests.
    pub(crate) fn blocks(&self, signal: Signal) -> bool {
        processes::has_in_mask(self.child.id(), "SigBlk:", signal)
    }

    pub(crate) fn ignores(&self, signal: Signal) -> bool {
        processes::ignores(self.child.id(), signal)
    }

    /// Waits until the program has noticed the end of its command.
    #[track_caller]
    pub(crate) fn wait_until_childless(&self) {
        let pid = self.child.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        eventually("the program has no child", || {
            fs::read_to_string(&children).is_ok_and(|children| children.is_empty())
        });
    }

    /// Waits until the children of the program are stopped.
    #[track_caller]
    pub(crate) fn wait_until_children_stop(&self) {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        eventually("the children are stopped", || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            let mut states = children.split_whitespace().map(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status"));
                status.is_ok_and(|status| status.contains("State:\tT"))
            });
            states.next() == Some(true) && states.all(|is_stopped| is_stopped)
        });
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Done {
        let mut ended: Option<ExitStatus> = None;
        eventually("the end of the program", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        let ended = ended.unwrap();
        Done {
            code: shown(ended),
            signal: ended.signal(),
            stdout: String::new(),
            stderr: fs::read_to_string(&self.stderr).unwrap(),
        }
    }

    /// Kills the program itself, as the kernel does without memory.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.stderr);
    }
}
