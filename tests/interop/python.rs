//! A Python program that acquires and releases locks on request. `serve.py` is its side.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use testkit::server::TIMEOUT;

pub(crate) const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");

/// A part of a name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Number(i64),
    Text(&'static str),
}

impl Part {
    fn word(self) -> String {
        match self {
            Self::Number(number) => format!("i{number}"),
            Self::Text(text) => text
                .bytes()
                .fold("t".to_owned(), |word, byte| format!("{word}{byte:02x}")),
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// Granted to the session with this process id.
    Granted(i64),
    Contended,
    Released,
}

pub(crate) struct Python {
    program: &'static str,
    child: Child,
    requests: ChildStdin,
    replies: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Python {
    pub(crate) fn start(program: &'static str, url: &str) -> Self {
        let python = std::env::var_os("ADVISORY_LOCKING_PYTHON")
            .expect("no ADVISORY_LOCKING_PYTHON: run ./scripts/interop, which sets it");
        let mut child = Command::new(python)
            .arg(program)
            .current_dir(DIRECTORY)
            .env("DATABASE_URL", url)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUTF8", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python");
        let requests = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, replies) = channel();
        // A thread, so that `reply` has a timeout. It ends with the program's output.
        let reader = thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            program,
            child,
            requests,
            replies,
            reader: Some(reader),
        }
    }

    /// Requests a lock, without waiting for the reply.
    pub(crate) fn request(&mut self, name: &[Part]) {
        let words: Vec<_> = name.iter().map(|part| part.word()).collect();
        self.send(&format!("lock {}", words.join(" ")));
    }

    pub(crate) fn release(&mut self) {
        self.send("release");
        assert_eq!(self.reply(), Reply::Released, "{}", self.program);
    }

    fn send(&mut self, line: &str) {
        writeln!(self.requests, "{line}")
            .and_then(|()| self.requests.flush())
            .unwrap_or_else(|error| panic!("{} has ended: {error}", self.program));
    }

    pub(crate) fn reply(&mut self) -> Reply {
        let line = self
            .replies
            .recv_timeout(TIMEOUT)
            .unwrap_or_else(|error| panic!("no reply from {}: {error}", self.program));
        match line.split_once(' ') {
            Some(("granted", pid)) => Reply::Granted(pid.parse().expect("a number")),
            None if line == "refused" => Reply::Contended,
            None if line == "released" => Reply::Released,
            _ => panic!("{}: {line}", self.program),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // An error means that the program has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
