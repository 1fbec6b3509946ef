//! A Python program that takes and releases locks when it is told to. `serve.py` is the other end.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use crate::server::PATIENCE;

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
pub(crate) enum Answer {
    /// By this process of the server.
    Granted(i32),
    Refused,
    Released,
}

pub(crate) struct Python {
    program: &'static str,
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Python {
    pub(crate) fn start(program: &'static str) -> Self {
        let python = std::env::var_os("ADVISORY_LOCKING_PYTHON")
            .expect("no ADVISORY_LOCKING_PYTHON: run ./scripts/interop, which sets it");
        let mut child = Command::new(python)
            .arg(program)
            .current_dir(DIRECTORY)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUTF8", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python");
        let questions = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, answers) = channel();
        // A thread, so that waiting for an answer has a limit. It ends with the program's output.
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
            questions,
            answers,
            reader: Some(reader),
        }
    }

    /// Asks for a lock. The answer comes when there is one.
    pub(crate) fn ask(&mut self, name: &[Part]) {
        let words: Vec<_> = name.iter().map(|part| part.word()).collect();
        self.say(&format!("lock {}", words.join(" ")));
    }

    pub(crate) fn release(&mut self) {
        self.say("release");
        assert_eq!(self.answer(), Answer::Released, "{}", self.program);
    }

    fn say(&mut self, line: &str) {
        writeln!(self.questions, "{line}")
            .and_then(|()| self.questions.flush())
            .unwrap_or_else(|error| panic!("{} has ended: {error}", self.program));
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let line = self
            .answers
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("no answer from {}: {error}", self.program));
        match line.split_once(' ') {
            Some(("granted", pid)) => Answer::Granted(pid.parse().expect("a number")),
            None if line == "refused" => Answer::Refused,
            None if line == "released" => Answer::Released,
            _ => panic!("{}: {line}", self.program),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // Gone already, if it failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
