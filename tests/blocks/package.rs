//! A package of a user that depends on this crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::ROOT;

/// The target directory of this crate, so that dependencies are shared.
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target");

pub(crate) struct Package {
    directory: PathBuf,
}

impl Package {
    /// Creates an empty package with the lock file of this crate, so that it uses the tested
    /// releases of dependencies.
    pub(crate) fn new(name: &str) -> Self {
        let directory = Path::new(TARGET).join("blocks").join(name);
        let package = Self { directory };
        let _ = fs::remove_dir_all(&package.directory);
        // Its own workspace, because it is inside the directory of this crate.
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

    /// Appends the lines to the manifest, with the path of this crate instead of its version.
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

    /// Runs a `cargo add` command of a document, with the path of this crate.
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

    /// Runs cargo in the package. Panics if it fails.
    pub(crate) fn cargo<'a>(&self, words: impl IntoIterator<Item = &'a str>) {
        succeed(&mut self.command(words));
    }

    /// Runs the program without `DATABASE_URL`. Panics if it fails.
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
            .env("CARGO_TARGET_DIR", TARGET)
            // As the dependencies in the profile of this crate, whose builds are reused.
            .env("CARGO_PROFILE_DEV_DEBUG", "false");
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
