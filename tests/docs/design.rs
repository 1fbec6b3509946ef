//! DESIGN.md begins with a table of files and items.

use crate::{code_words, read, section, table_rows};

const DEFINITIONS: [&str; 11] = [
    "fn ",
    "struct ",
    "enum ",
    "trait ",
    "const ",
    "static ",
    "type ",
    "mod ",
    "macro_rules! ",
    "union ",
    "feature = ",
];

/// Returns whether the text defines the item. The last segment of a path is the item itself; a
/// variant of an enum needs no keyword.
fn defines(text: &str, item: &str) -> bool {
    let name = item.rsplit("::").next().unwrap_or(item);
    let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let after = |before: &str| {
        let pattern = format!("{before}{name}");
        text.split(&pattern).skip(1).any(is_end)
    };
    let is_variant = item.contains("::") && name.starts_with(char::is_uppercase);
    DEFINITIONS.iter().any(|keyword| after(keyword)) || (is_variant && after("    "))
}

#[test]
fn table_of_places_names_existing_items() {
    let design = read("DESIGN.md");
    let rows = table_rows(section(&design, "Where is …?"));
    assert!(rows.len() >= 30, "only {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let [question, file, items] = row[..] else {
            panic!("not three cells: {row:?}");
        };
        // A reader who searches for the subject finds only rows that contain it.
        if question.starts_with('…') {
            wrong.push(format!("{question}: no subject"));
        }
        let file = file.trim_matches('`');
        let path = std::path::Path::new(crate::ROOT).join(file);
        let Ok(text) = std::fs::read_to_string(path) else {
            wrong.push(format!("{question}: no file {file}"));
            continue;
        };
        let mut named = 0;
        for item in code_words(items) {
            named += 1;
            if !defines(&text, item) {
                wrong.push(format!("{question}: no {item} in {file}"));
            }
        }
        if named == 0 {
            wrong.push(format!("{question}: no item"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn missing_item_is_detected() {
    let text = "impl Key {\n    fn derive_key(self) {}\n}\nenum Mode {\n    Shared,\n}\n";
    assert!(defines(text, "derive_key"));
    assert!(defines(text, "Key::derive_key"));
    assert!(defines(text, "Mode::Shared"));
    assert!(!defines(text, "derive"));
    assert!(!defines(text, "Mode::Exclusive"));
}
