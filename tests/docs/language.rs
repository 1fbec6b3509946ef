//! The rules of CONTRIBUTING.md for prose and names, as far as a program can check them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{code_words, read, section, sources, table_rows};

/// First words of a summary that make it an indirect question.
const QUESTIONS: [&str; 12] = [
    "What", "Who", "Whose", "Whom", "Whether", "How", "When", "Where", "Which", "Those", "That",
    "Why",
];

/// Names of a Unix account, a Python class, an SQL keyword and a removed module.
const PROPER_NAMES: [&str; 4] = [
    "server_user=nobody",
    "pals.Locker",
    "\"BETWEEN\"",
    "const TEMPORARY",
];

const MAX_WIDTH: usize = 100;
/// The width of a code block on docs.rs.
const MAX_CODE_WIDTH: usize = 84;
const MAX_TEST_NAME: usize = 60;

/// Returns the words of a text between single spaces: lower case, identifiers split.
fn normalized(text: &str) -> String {
    let mut words = String::from(" ");
    let mut previous = ' ';
    for c in text.chars() {
        if c.is_uppercase() && previous.is_lowercase() {
            words.push(' ');
        }
        if c.is_alphanumeric() || c == '\'' {
            words.extend(c.to_lowercase());
        } else if !words.ends_with(' ') {
            words.push(' ');
        }
        previous = c;
    }
    if !words.ends_with(' ') {
        words.push(' ');
    }
    words
}

/// Returns the words that DESIGN.md says are not used: those in back-ticks.
fn rejected_words(design: &str) -> Vec<String> {
    let glossary = section(design, "Glossary");
    let rows = table_rows(glossary);
    let others = glossary
        .split("Other words that are not used:")
        .nth(1)
        .expect("the other words");
    rows.iter()
        .filter_map(|row| row.last())
        .flat_map(|cell| code_words(cell))
        .chain(code_words(others))
        .map(normalized)
        .collect()
}

/// Panics if there are violations of a rule.
fn check(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}: {violations:#?}");
}

#[test]
fn rejected_words_do_not_occur() {
    let design = read("DESIGN.md");
    let rejected = rejected_words(&design);
    assert!(rejected.len() > 25, "only {} words", rejected.len());
    let mut violations = Vec::new();
    for path in sources() {
        // The glossary itself lists them.
        let text = match &*path {
            "DESIGN.md" => design.replace(section(&design, "Glossary"), ""),
            _ => read(&path),
        };
        for (number, line) in text.lines().enumerate() {
            let words = normalized(line);
            let found = rejected.iter().find(|word| words.contains(*word));
            let is_proper_name = PROPER_NAMES.iter().any(|name| line.contains(name));
            if let (Some(word), false) = (found, is_proper_name) {
                violations.push(format!("{path}:{}:{word}", number + 1));
            }
        }
    }
    check("words", &violations);
}

/// Returns the documentation comments of a Rust file: line number and first line.
fn summaries(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let comment = line
            .strip_prefix("///")
            .or_else(|| line.strip_prefix("//!"));
        if let (Some(comment), false) = (comment, inside) {
            found.push((number + 1, comment.trim()));
        }
        inside = comment.is_some();
    }
    found
}

#[test]
fn summaries_are_no_questions() {
    let mut violations = Vec::new();
    let mut seen = 0;
    for path in sources().iter().filter(|path| path.ends_with(".rs")) {
        for (number, summary) in summaries(&read(path)) {
            seen += 1;
            let first = summary.split(|c: char| !c.is_alphabetic()).next();
            if first.is_some_and(|word| QUESTIONS.contains(&word)) {
                violations.push(format!("{path}:{number}: {summary}"));
            }
        }
    }
    assert!(seen > 1_000, "only {seen} summaries");
    check("summaries", &violations);
}

/// Returns whether a line is a row of a table, the definition of a link, or a link and no more than
/// one word.
fn is_unbreakable(line: &str) -> bool {
    let content = line.trim_start_matches([' ', '/', '!', '#', '*', '-']);
    let (before, link) = content.split_at(content.find('[').unwrap_or(content.len()));
    let (_, after) = link.split_at(link.rfind(')').map_or(0, |end| end + 1));
    let words = before.split_whitespace().chain(after.split_whitespace());
    let words = words.filter(|word| word.contains(char::is_alphanumeric));
    content.contains('|') || content.contains("]: ") || words.count() <= 1
}

/// Tables and links may be longer.
#[test]
fn prose_wraps_at_100_columns() {
    let mut violations = Vec::new();
    for path in sources() {
        let text = read(&path);
        let mut in_block = false;
        for (number, line) in text.lines().enumerate() {
            let is_prose = if path.ends_with(".rs") {
                line.trim_start().starts_with("//")
            } else if path.ends_with(".md") {
                in_block ^= line.trim_start().starts_with("```");
                !in_block
            } else {
                line.starts_with('#')
            };
            if is_prose && line.chars().count() > MAX_WIDTH && !is_unbreakable(line) {
                violations.push(format!("{path}:{}: {} columns", number + 1, line.len()));
            }
        }
    }
    check("width", &violations);
}

/// Returns the numbers of the rows that have more or fewer cells than the head of their table. A
/// renderer shows a table with such a head as plain text.
fn uneven_rows<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<usize> {
    let mut columns = None;
    let mut in_block = false;
    let mut uneven = Vec::new();
    for (number, line) in lines.enumerate() {
        in_block ^= line.starts_with("```");
        if in_block || !line.starts_with('|') {
            columns = None;
            continue;
        }
        let count = line.replace(r"\|", "").matches('|').count();
        if *columns.get_or_insert(count) != count {
            uneven.push(number + 1);
        }
    }
    uneven
}

#[test]
fn tables_have_rows_of_equal_length() {
    let mut violations = Vec::new();
    for path in sources() {
        let text = read(&path);
        let rows = if path.ends_with(".rs") {
            uneven_rows(text.lines().map(|line| {
                let line = line.trim_start();
                let comment = line.strip_prefix("//!").or(line.strip_prefix("///"));
                comment.unwrap_or_default().trim_start()
            }))
        } else if path.ends_with(".md") {
            uneven_rows(text.lines().map(str::trim_start))
        } else {
            Vec::new()
        };
        violations.extend(rows.iter().map(|row| format!("{path}:{row}")));
    }
    check("tables", &violations);
}

#[test]
fn uneven_row_is_detected() {
    let table = [
        r"| a | b \| c |",
        "|---|---|---|",
        "| a | b | c |",
        "",
        "| a |",
    ];
    assert_eq!(uneven_rows(table.into_iter()), [2, 3]);
}

/// Returns the names of the test functions of a Rust file; every function of a list of cases is
/// one.
fn test_names(path: &str, text: &str) -> Vec<String> {
    let is_case = path.contains("/cases/");
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        }
        let function = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ")
            .trim_start_matches("async ");
        let Some(rest) = function.strip_prefix("fn ") else {
            continue;
        };
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        if is_test || (is_case && line.starts_with("pub")) {
            names.push(name.to_owned());
        }
        is_test = false;
    }
    names
}

#[test]
fn test_names_are_short_statements() {
    let mut violations = Vec::new();
    let mut seen = 0;
    for path in sources().iter().filter(|path| path.ends_with(".rs")) {
        for name in test_names(path, &read(path)) {
            seen += 1;
            let first = name.split('_').next().unwrap_or_default();
            let is_question = QUESTIONS.iter().any(|word| word.to_lowercase() == first);
            if name.len() > MAX_TEST_NAME || is_question {
                violations.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(seen > 300, "only {seen} tests");
    check("test names", &violations);
}

/// Returns the Rust blocks of a Markdown text or of the documentation comments of a Rust file: line
/// number and code. A block of another language, or one that is not run, is none of them.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut open: Option<bool> = None;
    for (number, line) in text.lines().enumerate() {
        let comment = line.trim_start();
        let line = ["/// ", "//! ", "///", "//!"]
            .iter()
            .find_map(|marker| comment.strip_prefix(marker))
            .unwrap_or(line);
        // A block that some features enable begins in an attribute.
        let line = if comment.contains(r#"doc = "```""#) {
            "```"
        } else {
            line
        };
        match (line.strip_prefix("```"), open) {
            (Some(language), None) => {
                let is_rust = matches!(language, "" | "rust" | "no_run");
                if is_rust {
                    blocks.push((number + 2, String::new()));
                }
                open = Some(is_rust);
            }
            (Some(_), Some(_)) => open = None,
            (None, Some(true)) => {
                if let Some((_, code)) = blocks.last_mut() {
                    code.push_str(line);
                    code.push('\n');
                }
            }
            (None, _) => {}
        }
    }
    blocks
}

fn documents_with_blocks() -> impl Iterator<Item = String> {
    let is_page = |path: &String| path.starts_with("docs/") || path == "README.md";
    sources().into_iter().filter(is_page)
}

/// Returns the documents, and the Rust files whose documentation comments `cargo test` runs.
fn files_with_doc_tests() -> impl Iterator<Item = String> {
    let is_code = |path: &String| {
        path.ends_with(".rs") && (path.starts_with("src/") || path.starts_with("backends/"))
    };
    documents_with_blocks().chain(sources().into_iter().filter(is_code))
}

/// Returns whether a block may lock keys on the test server. SQLite has no locks.
fn is_on_server(code: &str) -> bool {
    let code: String = code
        .lines()
        .map(|line| line.split("// ").next().unwrap_or_default())
        .collect();
    let has_server = ["DATABASE_URL", "PgConnection"]
        .iter()
        .any(|name| code.contains(name));
    let on_sqlite = code.contains(":memory:") || code.contains("rusqlite");
    has_server || (code.contains("LockOptions") && !on_sqlite)
}

#[test]
fn code_blocks_fit_the_page() {
    let mut violations = Vec::new();
    for path in documents_with_blocks() {
        for (first, code) in blocks(&read(&path)) {
            for (number, line) in code.lines().enumerate() {
                if line.chars().count() > MAX_CODE_WIDTH {
                    violations.push(format!("{path}:{}", first + number));
                }
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

/// Returns the first part of each key that a block locks.
fn keys(code: &str) -> BTreeSet<String> {
    let before = [
        "lock(\"",
        "lock((\"",
        "acquire(\"",
        "acquire((\"",
        "while_held(\"",
        "let key = \"",
        "let key = (\"",
        "django_pglock(\"",
    ];
    // Of several lines: `.with_lock_while_held(` and the key below.
    let code: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let code = code.replace("( ", "(");
    before
        .iter()
        .flat_map(|before| code.split(before).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

/// Returns a violation for each key that two blocks of these files lock, and the number of keys.
fn shared_keys(files: impl IntoIterator<Item = (String, String)>) -> (Vec<String>, usize) {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut violations = Vec::new();
    for (path, text) in files {
        for (line, code) in blocks(&text) {
            for key in if is_on_server(&code) {
                keys(&code)
            } else {
                BTreeSet::new()
            } {
                let block = format!("{path}:{line}");
                if let Some(other) = owners.insert(key.clone(), block.clone()) {
                    violations.push(format!("{other} and {block} lock {key:?}"));
                }
            }
        }
    }
    (violations, owners.len())
}

/// Doc tests run at the same time on one server.
#[test]
fn blocks_on_a_server_use_keys_of_their_own() {
    let (violations, keys) = shared_keys(files_with_doc_tests().map(|path| {
        let text = read(&path);
        (path, text)
    }));
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(keys > 20, "only {keys} keys");
}

#[test]
fn shared_key_of_a_comment_and_a_page_is_detected() {
    let block = "PgConnection::establish(url); conn.with_advisory_lock(\"one\", || {});";
    let page = ("page.md".to_owned(), format!("```rust\n{block}\n```\n"));
    let plain = format!("/// ```\n/// {block}\n/// ```\n");
    let attribute = format!("#[cfg_attr(feature = \"a\", doc = \"```\")]\n/// {block}\n/// ```\n");
    for comment in [plain, attribute] {
        let files = [page.clone(), ("comment.rs".to_owned(), comment)];
        assert_eq!(shared_keys(files).0.len(), 1);
    }
}

#[test]
fn words_are_found_in_identifiers() {
    assert_eq!(normalized("fn put_back(&self)"), " fn put back self ");
    assert_eq!(normalized("AsyncMutex, user's"), " async mutex user's ");
}
