//! Rust and Python exclude each other, both ways, for every scheme that has a client in Python.
//!
//! No test that `cargo test` runs by itself, because it needs Python libraries: `scripts/interop` installs them and runs it. It prints a line
//! for each client, scheme and direction, and fails if anything differs.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program that fails says so by panicking, and prints what it has shown"
)]

mod python;
mod schemes;
mod server;

use std::collections::BTreeSet;

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions};
use diesel::prelude::*;

use python::{Answer, Python};
use schemes::{Asks, Name, Scheme};
use server::Server;

fn main() {
    let schemes = schemes::all();
    every_program_is_run(&schemes);
    for scheme in &schemes {
        let mut pair = Pair::new(scheme);
        pair.with_each_name(scheme, Pair::rust_holds);
        let refused = match scheme.asks {
            Asks::Tries => "Python is refused",
            Asks::Waits => "Python waits",
        };
        print_line(scheme, "Rust holds", refused);
        pair.with_each_name(scheme, Pair::python_holds);
        print_line(scheme, "Python holds", "Rust is refused");
    }
}

fn print_line(scheme: &Scheme, holds: &str, refused: &str) {
    let Scheme {
        title,
        program,
        names,
        ..
    } = scheme;
    println!(
        "interop: {title:<17} {program:<24} {holds:>12}, {refused:>17}, is granted after the release ({} names)",
        names.len()
    );
}

/// A program that is in the directory but not in the table would never be run.
fn every_program_is_run(schemes: &[Scheme]) {
    let shared = ["database.py", "serve.py"];
    let run: BTreeSet<_> = schemes
        .iter()
        .map(|scheme| scheme.program.to_owned())
        .collect();
    let there = std::fs::read_dir(python::DIRECTORY)
        .expect("the programs")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name.ends_with(".py") && !shared.contains(&&**name));
    assert_eq!(run, there.collect());
}

/// The two sides, and a third that watches the server.
struct Pair {
    title: &'static str,
    asks: Asks,
    rust: PgConnection,
    python: Python,
    server: Server,
}

impl Pair {
    fn new(scheme: &Scheme) -> Self {
        Self {
            title: scheme.title,
            asks: scheme.asks,
            rust: server::connect(),
            python: Python::start(scheme.program),
            server: Server::new(),
        }
    }

    /// Each name together with the next one, which is free meanwhile.
    fn with_each_name(&mut self, scheme: &Scheme, show: impl Fn(&mut Self, &Name, &Name)) {
        assert!(scheme.names.len() > 1, "{}: names", self.title);
        let others = scheme.names.iter().cycle().skip(1);
        for (name, other) in scheme.names.iter().zip(others) {
            assert_ne!(name.key, other.key, "{}", self.title);
            show(self, name, other);
        }
    }

    fn rust_holds(&mut self, name: &Name, other: &Name) {
        let shown = format!("{}, {:?}", self.title, name.parts);
        let guard = self
            .rust
            .acquire_advisory_lock(&name.key, LockOptions::no_wait())
            .unwrap_or_else(|error| panic!("{}: {error}", shown));

        // Another name is free meanwhile, so what is refused below is this one.
        self.python.ask(&other.parts);
        assert_held(&mut self.server, &mut self.python, &other.key, &shown);
        self.python.release();

        self.python.ask(&name.parts);
        match self.asks {
            Asks::Tries => assert_eq!(self.python.answer(), Answer::Refused, "{}", shown),
            Asks::Waits => self.server.until_someone_waits(&name.key, &shown),
        }
        guard
            .release()
            .unwrap_or_else(|error| panic!("{}: {error}", shown));
        if self.asks == Asks::Tries {
            self.python.ask(&name.parts);
        }
        assert_held(&mut self.server, &mut self.python, &name.key, &shown);
        self.python.release();
    }

    fn python_holds(&mut self, name: &Name, other: &Name) {
        let shown = format!("{}, {:?}", self.title, name.parts);
        self.python.ask(&name.parts);
        assert_held(&mut self.server, &mut self.python, &name.key, &shown);

        assert!(
            granted(&mut self.rust, &other.key),
            "another name: {}",
            shown
        );
        assert!(!granted(&mut self.rust, &name.key), "{}", shown);
        self.python.release();
        assert!(granted(&mut self.rust, &name.key), "{}", shown);
    }
}

/// Whether Rust is granted a lock, which it gives back.
fn granted(conn: &mut PgConnection, key: &LockKey) -> bool {
    conn.try_acquire_advisory_lock(key, LockOptions::no_wait())
        .expect("an answer")
        .map(|guard| guard.release().expect("released"))
        .is_some()
}

/// Python says that it was granted the lock, and the server shows just its process as the holder.
fn assert_held(server: &mut Server, python: &mut Python, key: &LockKey, shown: &str) {
    match python.answer() {
        Answer::Granted(pid) => assert_eq!(server.holders(key), [pid], "{shown}: {key}"),
        answer => panic!("{shown}: {answer:?}"),
    }
}
