//! The Rust blocks of a document, each with the commands above it.

use std::fmt;
use std::fs;

use crate::ROOT;

/// A Rust block as a reader would copy it.
pub(crate) struct Block {
    /// Name of the document without `.md`.
    document: String,
    /// Number of the block in the document, from 1.
    number: usize,
    /// Line of the first line of code.
    line: usize,
    /// The `cargo add` lines between the previous block and this one.
    pub(crate) commands: Vec<String>,
    /// The `Cargo.toml` between the previous block and this one, or an empty text.
    pub(crate) manifest: String,
    pub(crate) code: String,
}

impl Block {
    pub(crate) fn document(&self) -> &str {
        &self.document
    }

    /// Returns the name of its module or package.
    pub(crate) fn name(&self) -> String {
        let document = self.document.to_lowercase().replace('-', "_");
        format!("{document}_{}", self.number)
    }

    pub(crate) fn has_main(&self) -> bool {
        self.code.contains("fn main()")
    }

    pub(crate) fn falls_back_to_sqlite(&self) -> bool {
        self.code
            .contains("var(\"DATABASE_URL\").unwrap_or(\"sqlite")
    }

    pub(crate) fn has_tests(&self) -> bool {
        self.code.contains("#[test]")
    }
}

impl fmt::Display for Block {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.md:{}", self.document, self.line)
    }
}

/// Returns the blocks of a document, in order.
///
/// Panics at a block with an attribute such as `no_run` or `ignore`.
pub(crate) fn blocks(directory: &str, document: &str) -> Vec<Block> {
    let path = format!("{ROOT}/{directory}{document}.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut blocks = Vec::new();
    let (mut commands, mut manifest) = (Vec::new(), String::new());
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.starts_with("cargo add ") {
            // Without the comment.
            let command = line.split_once(" #").map_or(line, |(command, _)| command);
            commands.push(command.trim_end().to_owned());
        }
        if line == "```toml" {
            manifest = fenced(lines.by_ref());
        }
        let Some(language) = line.strip_prefix("```rust") else {
            continue;
        };
        // A doc test knows the dev-dependencies only; a block with a manifest runs here.
        let is_ignored_doc_test = language == ",ignore" && !manifest.is_empty();
        assert!(
            language.is_empty() || is_ignored_doc_test,
            "{path}:{}: a block with an attribute is not run",
            index + 1
        );
        let code = fenced(lines.by_ref());
        blocks.push(Block {
            document: document.to_owned(),
            number: blocks.len() + 1,
            line: index + 2,
            commands: std::mem::take(&mut commands),
            manifest: std::mem::take(&mut manifest),
            code,
        });
    }
    blocks
}

/// Returns the lines up to the end of the block.
fn fenced<'t>(lines: impl Iterator<Item = (usize, &'t str)>) -> String {
    lines
        .map(|(_, line)| line)
        .take_while(|line| *line != "```")
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Returns the names of the guide's pages.
pub(crate) fn pages() -> Vec<String> {
    let directory = format!("{ROOT}/docs");
    let mut pages: Vec<_> = fs::read_dir(directory)
        .expect("docs/")
        .map(|entry| entry.expect("an entry").file_name())
        .filter_map(|name| Some(name.to_str()?.strip_suffix(".md")?.to_owned()))
        .collect();
    pages.sort();
    pages
}
