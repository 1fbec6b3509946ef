//! Programs that must not compile, and the messages of the compiler for them.
//!
//! `rustc` compiles each file of `tests/ui/fail` against the libraries that cargo has built for
//! this test program, so no dependency is built twice. The messages are compared with the
//! `.stderr` file beside the program. After a change of a message, this command writes the files:
//!
//! ```sh
//! UPDATE_EXPECT=1 cargo test --workspace --all-features --test compile_fail
//! ```
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

#[path = "ui/nested_through_the_guard.rs"]
mod nested_through_the_guard;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CASES: &str = "tests/ui/fail";
/// The crates that a case can use.
const CRATES: [&str; 3] = ["advisory_locking", "rusqlite", "sqlx"];
/// Width of line numbers in the expected messages.
const GUTTER: usize = 2;

#[test]
fn nested_lock_through_the_guard_compiles() {
    nested_through_the_guard::main().expect("nested locks");
}

#[test]
fn misuse_does_not_compile() {
    let libraries = Libraries::find();
    let update = env::var_os("UPDATE_EXPECT").is_some();
    let mut cases: Vec<PathBuf> = fs::read_dir(Path::new(ROOT).join(CASES))
        .expect("the directory of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {CASES}");
    let mut failures = Vec::new();
    for case in cases {
        let actual = libraries.compile(&case);
        let file = case.with_extension("stderr");
        if update {
            fs::write(&file, &actual).expect("write the expected messages");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if actual != expected {
            let name = case.display();
            failures.push(format!(
                "{name}\n--- expected\n{expected}\n--- actual\n{actual}"
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{}\nother messages are no fault with another Rust release than that of feature-matrix.md",
        failures.join("\n")
    );
}

/// Paths of the libraries that cargo has built for this test program.
struct Libraries {
    directory: PathBuf,
    externs: Vec<String>,
}

impl Libraries {
    /// Asks cargo for the artifacts of this test program. They are up to date after `scripts/test`,
    /// which builds the workspace: one package alone has other features of its dependencies.
    fn find() -> Self {
        let program = env::current_exe().expect("the path of this program");
        let directory = program.parent().expect("a directory").to_owned();
        let profile = directory.parent().and_then(Path::file_name);
        let profile = match profile.and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let output = Command::new(env!("CARGO"))
            .args([
                "test",
                "--no-run",
                "--quiet",
                "--workspace",
                "--all-features",
            ])
            .args(["--test", "compile_fail", "--profile", profile])
            .arg("--message-format=json")
            .current_dir(ROOT)
            .stderr(Stdio::inherit())
            .output()
            .expect("run cargo");
        assert!(output.status.success(), "cargo: {}", output.status);
        let output = String::from_utf8(output.stdout).expect("UTF-8");
        let messages: Vec<Value> = output
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let externs = CRATES.map(|name| {
            let mut libraries = messages.iter().filter_map(|message| library(message, name));
            let library = libraries.next().expect("a library of this crate");
            assert_eq!(libraries.next(), None, "two libraries {name}");
            format!("{name}={library}")
        });
        Self {
            directory,
            externs: externs.into(),
        }
    }

    /// Compiles a case, which must fail. Returns the normalized messages.
    fn compile(&self, case: &Path) -> String {
        let source = case.strip_prefix(ROOT).expect("a path below the package");
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command
            .args(["--edition=2024", "--crate-type=bin", "--emit=metadata"])
            .args(["--color=never", "--diagnostic-width=140", "-Awarnings"])
            .arg("--out-dir")
            .arg(env!("CARGO_TARGET_TMPDIR"))
            .arg(format!("-Ldependency={}", self.directory.display()))
            .arg(source)
            .current_dir(ROOT);
        for library in &self.externs {
            command.arg("--extern").arg(library);
        }
        let output = command.output().expect("run rustc");
        let messages = String::from_utf8(output.stderr).expect("UTF-8");
        let source = source.display();
        assert!(!output.status.success(), "{source} compiles: {messages}");
        normalize(&messages)
    }
}

/// Returns the `.rlib` of the crate `name` if the message reports it.
fn library<'m>(message: &'m Value, name: &str) -> Option<&'m str> {
    let is_library = message["reason"] == "compiler-artifact"
        && message["target"]["name"] == name
        && message["profile"]["test"] == false;
    let files = message["filenames"].as_array().filter(|_| is_library)?;
    files
        .iter()
        .filter_map(Value::as_str)
        .find(|file| file.ends_with(".rlib"))
}

/// Removes everything from the messages that depends on the machine or on lines of other files.
fn normalize(messages: &str) -> String {
    let messages = messages.replace(&format!("{ROOT}/"), "");
    let mut normalized = String::new();
    for diagnostic in diagnostics(&messages) {
        // A diagnostic without a location is a summary, such as the number of errors.
        let Some(gutter) = diagnostic.iter().find_map(|line| line.find("-->")) else {
            continue;
        };
        let mut is_case = true;
        for line in diagnostic {
            let mut line = line.trim_end().to_owned();
            if let Some((arrow, location)) = location(&line) {
                is_case = location.starts_with(CASES);
                if !is_case {
                    let path = location.split(':').next().expect("a path");
                    line = format!("{:gutter$}{arrow} {}", "", generic(path));
                }
            } else if !is_case {
                line = without_number(&line);
            }
            normalized.push_str(&with_gutter(&line, gutter));
            normalized.push('\n');
        }
    }
    normalized.truncate(normalized.trim_end().len());
    normalized + "\n"
}

/// Splits messages into diagnostics, which begin with a level in the first column.
fn diagnostics(messages: &str) -> Vec<Vec<&str>> {
    let mut diagnostics: Vec<Vec<&str>> = Vec::new();
    for line in messages.lines() {
        let begins = ["error", "warning", "For more information", "Some errors"]
            .iter()
            .any(|level| line.starts_with(level));
        if begins || diagnostics.is_empty() {
            diagnostics.push(Vec::new());
        }
        diagnostics.last_mut().expect("a diagnostic").push(line);
    }
    diagnostics
}

/// Returns the arrow and the location of a line such as `  --> src/lib.rs:1:1`.
fn location(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim_start();
    ["-->", ":::"]
        .into_iter()
        .find_map(|arrow| Some((arrow, line.strip_prefix(arrow)?.trim_start())))
}

/// Replaces the line number of a source line with spaces.
fn without_number(line: &str) -> String {
    let text = line.trim_start_matches(|first: char| first == ' ' || first.is_ascii_digit());
    if text.starts_with('|') {
        format!("{:width$}{text}", "", width = line.len() - text.len())
    } else {
        line.to_owned()
    }
}

/// Replaces the directories of dependencies and of the standard library.
fn generic(path: &str) -> String {
    for (inside, name) in [("/registry/src/", "$CARGO"), ("/rustc/", "$RUST")] {
        if let Some((_, rest)) = path.split_once(inside) {
            // The first component is the registry or the commit.
            let rest = rest.split_once('/').map_or(rest, |(_, rest)| rest);
            return format!("{name}/{rest}");
        }
    }
    path.to_owned()
}

/// Changes the width of the line numbers, which depends on the highest one of the diagnostic.
fn with_gutter(line: &str, gutter: usize) -> String {
    let is_indented = line.starts_with(|first: char| first.is_ascii_digit() || first == ' ');
    if !is_indented {
        line.to_owned()
    } else if gutter < GUTTER {
        format!("{}{line}", " ".repeat(GUTTER - gutter))
    } else {
        line[(gutter - GUTTER)..].to_owned()
    }
}
