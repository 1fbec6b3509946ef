//! A package outside of this one, as a user has it, made by cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::ROOT;

/// Beside the other things that are built.
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target");

pub(crate) struct Package {
    directory: PathBuf,
}

impl Package {
    /// An empty one, with this crate's lock file, so that its dependencies are of the releases that everything is tested with.
    pub(crate) fn new(name: &str) -> Self {
        let directory = Path::new(TARGET).join("blocks").join(name);
        let package = Self { directory };
        let _ = fs::remove_dir_all(&package.directory);
        // A workspace of its own: it lies within this crate's directory.
        package.write(
            "Cargo.toml",
            &format!(
                "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n"
            ),
        );
        package.write("src/main.rs", "fn main() {}\n");
        fs::copy(
            format!("{ROOT}/Cargo.lock"),
            package.directory.join("Cargo.lock"),
        )
        .expect("the lock file");
        package
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.directory.join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a new directory");
        fs::write(path, text).expect("a new file");
    }

    /// Writes into its manifest what a document shows, with this crate from where it is.
    pub(crate) fn depend(&self, manifest: &str) {
        let (from, to) = (
            "advisory-locking = { version = ",
            "advisory-locking = { path = ",
        );
        let mut text = fs::read_to_string(self.directory.join("Cargo.toml")).expect("its manifest");
        for line in manifest.lines() {
            text.push('\n');
            match line
                .strip_prefix(from)
                .and_then(|rest| rest.split_once(','))
            {
                Some((_, rest)) => text.extend([to, "\"", ROOT, "\",", rest]),
                None => text.push_str(line),
            }
        }
        self.write("Cargo.toml", &text);
    }

    /// Runs a command of a document: `cargo add …`, with this crate from where it is.
    pub(crate) fn add(&self, command: &str) {
        let words = command.split_whitespace().skip(1).flat_map(|word| {
            if word == "advisory-locking" {
                vec!["--path", ROOT]
            } else {
                vec![word]
            }
        });
        self.cargo(words);
    }

    /// Runs cargo in it, which must succeed.
    pub(crate) fn cargo<'a>(&self, words: impl IntoIterator<Item = &'a str>) {
        succeed(&mut self.command(words));
    }

    /// The same for a program that can do without the server in `DATABASE_URL`.
    pub(crate) fn run_without_server(&self) {
        succeed(self.command(["run"]).env_remove("DATABASE_URL"));
    }

    pub(crate) fn try_cargo<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(words).output().expect("cargo")
    }

    fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut words = words.into_iter();
        let mut command = Command::new(env!("CARGO"));
        command
            .args(words.next())
            .arg("--quiet")
            .args(words)
            .current_dir(&self.directory)
            .env("CARGO_TARGET_DIR", TARGET);
        command
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("cargo");
    assert!(output.status.success(), "{}", text(&output));
}

pub(crate) fn text(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}
