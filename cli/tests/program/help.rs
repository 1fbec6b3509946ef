//! Help, completions and the manual, without a server.
//!
//! `help.txt` has the help of each command, and `manual.txt` the manual page. A change of either
//! shows in the review. With `ADVISORY_LOCKING_UPDATE_HELP=1`, the tests write the files.

use std::fs;
use std::path::Path;

use crate::keys::offline;
use crate::program::run;

const COMMANDS: [&str; 11] = [
    "run",
    "try",
    "wait",
    "ls",
    "who",
    "kill",
    "key",
    "doctor",
    "watch",
    "completions",
    "man",
];

/// Asserts that a text is that of a file beside this one.
#[track_caller]
fn assert_file(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/program")
        .join(name);
    if std::env::var_os("ADVISORY_LOCKING_UPDATE_HELP").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    let mut lines = expected.lines().zip(text.lines());
    let first = lines.find(|(expected, line)| expected != line);
    assert!(
        expected == text,
        "{name} differs, first in {first:?}; ADVISORY_LOCKING_UPDATE_HELP=1 writes it"
    );
}

#[test]
fn help_of_each_command_is_that_of_the_file() {
    let help = offline(&["--help"]);
    help.assert_code(0);
    let mut all = help.stdout;
    for command in COMMANDS {
        assert!(
            all.lines()
                .any(|line| line.trim_start().starts_with(command)),
            "{command} is in the list of commands"
        );
        let help = offline(&[command, "--help"]);
        help.assert_code(0);
        all.push_str(&format!("\n==> {command} --help\n\n{}", help.stdout));
    }
    assert_file("help.txt", &all);
}

#[test]
fn manual_is_that_of_the_file() {
    let manual = offline(&["man"]);
    manual.assert_code(0);
    assert_file("manual.txt", &manual.stdout);
}

#[test]
fn completions_and_manual_need_no_server() {
    offline(&["--version"])
        .assert_code(0)
        .assert_stdout("advisory-lock ");
    for shell in ["bash", "zsh", "fish"] {
        offline(&["completions", shell])
            .assert_code(0)
            .assert_stdout("advisory-lock");
    }
    let directory = std::env::temp_dir().join(testkit::server::fresh_name());
    fs::create_dir(&directory).unwrap();
    run(&["man", "--directory", directory.to_str().unwrap()]).assert_code(0);
    for page in [
        "advisory-lock.1",
        "advisory-lock-run.1",
        "advisory-lock-doctor.1",
    ] {
        assert!(directory.join(page).exists(), "{page}");
    }
    fs::remove_dir_all(&directory).unwrap();
    let directory = directory.to_str().unwrap();
    run(&["man", "--directory", directory])
        .assert_code(74)
        .assert_stderr(directory);
}
