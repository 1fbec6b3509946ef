//! Tests that Rust and Python exclude each other, for every scheme with a Python client.
//!
//! `scripts/interop` installs the Python packages and runs this program; `cargo test` does not. It
//! prints a line for each client, scheme and direction.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the program fails by panicking and prints its results"
)]

mod python;
mod schemes;

use std::collections::BTreeSet;

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions};
use diesel::PgConnection;
use testkit::observer::Observe;
use testkit::temp::TempDatabase;

use python::{Python, Reply};
use schemes::{KeyForm, Name, Scheme};

fn main() {
    let schemes = schemes::all();
    check_programs(&schemes);
    // The names are constant, and the locks of two databases are distinct.
    let database = TempDatabase::create();
    for scheme in &schemes {
        let mut pair = Pair::new(scheme, &database);
        pair.with_each_name(scheme, Pair::rust_holds);
        let contended = match scheme.request {
            KeyForm::Try => "Python fails",
            KeyForm::Wait => "Python waits",
        };
        print_line(scheme, "Rust holds", contended);
        pair.with_each_name(scheme, Pair::python_holds);
        print_line(scheme, "Python holds", "Rust fails");
    }
}

fn print_line(scheme: &Scheme, holds: &str, contended: &str) {
    let Scheme {
        title,
        program,
        names,
        ..
    } = scheme;
    println!(
        "interop: {title:<17} {program:<24} {holds:>12}, {contended:>12}, is granted after the release ({} names)",
        names.len()
    );
}

/// Checks that every Python program of the directory is in the table.
fn check_programs(schemes: &[Scheme]) {
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

/// The two clients, and a connection that reads `pg_locks`.
struct Pair {
    title: &'static str,
    request: KeyForm,
    rust: PgConnection,
    python: Python,
    observer: PgConnection,
}

impl Pair {
    fn new(scheme: &Scheme, database: &TempDatabase) -> Self {
        Self {
            title: scheme.title,
            request: scheme.request,
            rust: database.connect(),
            python: Python::start(scheme.program, &database.url()),
            observer: database.connect(),
        }
    }

    /// Calls `show` with each name and the next one, which is free meanwhile.
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

        // Another name is free meanwhile, so only this name is contended.
        self.python.request(&other.parts);
        assert_held(&mut self.observer, &mut self.python, &other.key, &shown);
        self.python.release();

        self.python.request(&name.parts);
        match self.request {
            KeyForm::Try => assert_eq!(self.python.reply(), Reply::Contended, "{}", shown),
            KeyForm::Wait => self.observer.wait_until_waiters(&name.key, 1),
        }
        guard
            .release()
            .unwrap_or_else(|error| panic!("{}: {error}", shown));
        if self.request == KeyForm::Try {
            self.python.request(&name.parts);
        }
        assert_held(&mut self.observer, &mut self.python, &name.key, &shown);
        self.python.release();
    }

    fn python_holds(&mut self, name: &Name, other: &Name) {
        let shown = format!("{}, {:?}", self.title, name.parts);
        self.python.request(&name.parts);
        assert_held(&mut self.observer, &mut self.python, &name.key, &shown);

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

/// Returns true if Rust is granted the lock. Releases it.
fn granted(conn: &mut PgConnection, key: &LockKey) -> bool {
    conn.try_acquire_advisory_lock(key, LockOptions::no_wait())
        .expect("a reply")
        .map(|guard| guard.release().expect("released"))
        .is_some()
}

/// Asserts that Python reports the grant and that its session is the only holder.
fn assert_held(observer: &mut PgConnection, python: &mut Python, key: &LockKey, shown: &str) {
    match python.reply() {
        Reply::Granted(pid) => assert_eq!(observer.holders(key), [pid], "{shown}: {key}"),
        reply => panic!("{shown}: {reply:?}"),
    }
}
