//! A client in a child process, which can be killed and stopped: this program, run again for the
//! same test. It reads commands line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;

use advisory_locking::LockKey;

use crate::actor::{Actor, ActorChannel, OUTER_LIMIT};
use crate::adapter_under_test::AdapterUnderTest;
use crate::cases::{block, no_wait};
use crate::fixture::{Harness, until};

/// Environment variable of the child process with the server's address.
const URL: &str = "ADVISORY_LOCKING_REAL_FAULTS_CLIENT";
/// Marks the client's lines among those of the test runner.
const OUTPUT_PREFIX: &str = "client: ";

pub(crate) fn url_from_parent() -> Option<String> {
    std::env::var(URL).ok()
}

/// Executes the parent's commands until its pipe is closed.
pub(crate) fn serve(harness: Box<dyn Harness>) {
    let (commands, inbox) = channel();
    let (outbox, outcomes) = channel();
    let run = harness.actor();
    let serving = thread::spawn(move || {
        run(&ActorChannel {
            commands: Mutex::new(inbox),
            outcomes: outbox,
        });
    });
    let actor = Actor { commands, outcomes };
    for line in std::io::stdin().lines() {
        let line = line.expect("the parent writes text");
        let outcome = match line.split_once(' ').unwrap_or((&line, "")) {
            ("acquire", key) => actor.acquire(&LockKey::from(key), no_wait()),
            ("wait", key) => actor.acquire(&LockKey::from(key), block(OUTER_LIMIT)),
            ("release", _) => actor.release(),
            (word, _) => panic!("unknown command {word:?}"),
        };
        println!("{OUTPUT_PREFIX}{outcome:?}");
    }
    drop(actor);
    serving.join().expect("the actor did not panic");
}

/// The parent's handle. It kills the process when it is dropped.
pub(crate) struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// Runs the same test in a child process.
    pub(crate) fn spawn(adapter: AdapterUnderTest, url: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &adapter.test(), "--nocapture"])
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs again");
        let input = process.stdin.take().expect("a pipe");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        Self {
            process,
            input,
            output,
        }
    }

    pub(crate) fn start(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("the client listens");
    }

    /// Returns the outcome of the started command.
    pub(crate) fn finish(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self
                .output
                .read_line(&mut line)
                .expect("the client prints text");
            assert!(read > 0, "the client has ended");
            // The test runner may print on the same line before it.
            if let Some((_, outcome)) = line.split_once(OUTPUT_PREFIX) {
                return outcome.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn call(&mut self, command: &str) -> String {
        self.start(command);
        self.finish()
    }

    /// `SIGKILL`.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("a child can be killed");
        self.process.wait().expect("a child can be waited for");
    }

    /// `SIGSTOP`; returns when it has stopped.
    pub(crate) fn stop(&self) {
        signal("STOP", self.process.id());
        until(OUTER_LIMIT, || self.is_stopped().then_some(())).expect("it stops");
    }

    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.expect("a child is shown in /proc");
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    }

    /// `SIGCONT`.
    pub(crate) fn resume(&self) {
        signal("CONT", self.process.id());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a signal with the shell's built-in `kill`.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status();
    assert!(status.expect("a shell").success(), "SIG{name} to {pid}");
}
