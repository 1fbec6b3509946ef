//! Rules for documents, names and layers. Needs no feature and no server.
//!
//! | module | rule |
//! |---|---|
//! | `design` | the table "Where is …?" of DESIGN.md names files and items that exist |
//! | `documents` | documents name files, features and examples that exist |
//! | `feature_matrix` | feature-matrix.md agrees with Cargo.toml |
//! | `language` | words, summaries, line widths, test names, code blocks |
//! | `modules` | a module imports only from modules below it, in the order of DESIGN.md |
//! | `scenarios` | tests/SCENARIOS.md names tests that exist and are run |
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod design;
mod documents;
mod feature_matrix;
mod language;
mod modules;
mod scenarios;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the files of a directory with this ending, without subdirectories.
fn files(directory: &str, ending: &str) -> BTreeSet<PathBuf> {
    let files: BTreeSet<_> = fs::read_dir(Path::new(ROOT).join(directory))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file() && path.to_string_lossy().ends_with(ending))
        .collect();
    assert!(!files.is_empty(), "no {ending} in {directory:?}");
    files
}

/// Returns the text files below a directory as paths relative to the root. A published package
/// lacks some directories.
fn tree(directory: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(Path::new(ROOT).join(&directory)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.expect("an entry");
            let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                let generated = ["target", "corpus", "artifacts", "__pycache__"];
                if !generated.iter().any(|name| path.ends_with(name)) {
                    directories.push(path);
                }
            } else if fs::read_to_string(entry.path()).is_ok() {
                found.insert(path);
            }
        }
    }
    found
}

/// Returns the text files of the repository that its authors write.
fn sources() -> BTreeSet<String> {
    let directories = [
        ".ci", "backends", "benches", "cli", "docs", "examples", "fuzz", "scripts", "src",
        "testkit", "tests",
    ];
    let mut sources: BTreeSet<_> = directories.into_iter().flat_map(tree).collect();
    sources.extend(files("", ".md").iter().map(|path| relative(path)));
    sources.insert("Cargo.toml".to_owned());
    let generated = [".lock", ".csv", ".svg"];
    sources.retain(|path| !generated.iter().any(|ending| path.ends_with(ending)));
    sources
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(ROOT).expect("a path in the repository");
    path.to_string_lossy().into_owned()
}

/// Returns the cells of the table rows in a text, without the head of each table.
fn table_rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        let Some(row) = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'))
        else {
            continue;
        };
        if row.starts_with("---") {
            rows.pop();
        } else {
            rows.push(row.split(" | ").map(str::trim).collect());
        }
    }
    rows
}

/// Returns the section of a Markdown text under a heading of the second level.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    text.split("\n## ")
        .find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'))
        .unwrap_or_else(|| panic!("no heading {heading:?}"))
}

/// Returns the words in back-ticks.
fn code_words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
