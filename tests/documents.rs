//! The documents name files, features and examples that exist.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails says so by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a directory whose name ends so.
fn files(directory: &str, ending: &str) -> BTreeSet<PathBuf> {
    let files: BTreeSet<_> = fs::read_dir(Path::new(ROOT).join(directory))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file() && path.to_string_lossy().ends_with(ending))
        .collect();
    assert!(!files.is_empty(), "no {ending} in {directory:?}");
    files
}

/// Those beside the manifest, and the guide's pages.
fn documents() -> BTreeSet<PathBuf> {
    files("", ".md")
        .into_iter()
        .chain(files("docs", ".md"))
        .collect()
}

fn manifest() -> toml::Table {
    read("Cargo.toml").parse().expect("Cargo.toml is TOML")
}

/// Each example's features, as the manifest has them.
fn examples() -> BTreeMap<String, String> {
    manifest()["example"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|example| {
            let features: Vec<_> = example["required-features"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(toml::Value::as_str)
                .collect();
            let name = example["name"].as_str().expect("a text");
            (name.to_owned(), features.join(","))
        })
        .collect()
}

/// What stands between two texts, wherever they do.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Vec<&'t str> {
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split_once(after))
        .map(|(inside, _)| inside)
        .collect()
}

#[test]
fn links_lead_to_files() {
    let mut seen = 0;
    for document in files("", ".md") {
        for target in between(&read(&document), "](", ")") {
            if !target.contains("://") {
                seen += 1;
                let there = Path::new(ROOT).join(target).exists();
                assert!(there, "{}: no {target}", document.display());
            }
        }
    }
    assert!(seen > 5, "only {seen} links");
}

/// Of the code itself: `src/…`, `backends/…`, `scripts/…`, `examples/…`.
#[test]
fn paths_in_back_ticks_exist() {
    let mut seen = 0;
    for document in documents() {
        for path in read(&document).split('`') {
            let path = path.split(' ').next().unwrap_or_default();
            let ours = [
                "src/",
                "backends/",
                "scripts/",
                "examples/",
                "docs/",
                "tests/",
            ];
            // An adapter to come is called `client`, a backend `database`.
            let meant = !path.contains("client") && !path.contains("database");
            if meant && ours.iter().any(|directory| path.starts_with(directory)) {
                seen += 1;
                let there = Path::new(ROOT).join(path).exists();
                assert!(there, "{}: no {path}", document.display());
            }
        }
    }
    assert!(seen > 10, "only {seen} paths");
}

#[test]
fn features_that_commands_name_exist() {
    let manifest = manifest();
    let features = manifest["features"].as_table().expect("a table");
    let mut seen = 0;
    for file in documents().into_iter().chain(files("examples", ".rs")) {
        // Other crates have features of their own.
        let others =
            |line: &&str| line.contains("cargo add ") && !line.contains("advisory-locking");
        let text: Vec<_> = read(&file)
            .lines()
            .filter(|line| !others(line))
            .map(str::to_owned)
            .collect();
        let text = text.join("\n");
        for list in text.split("--features ").skip(1) {
            let end = list.find(|c: char| !(c.is_ascii_alphanumeric() || "-,".contains(c)));
            for feature in list[..end.unwrap_or(list.len())].split(',') {
                seen += 1;
                let there = features.contains_key(feature);
                assert!(there, "{}: no feature {feature:?}", file.display());
            }
        }
    }
    assert!(seen > 10, "only {seen} features");
}

/// What a page says to write into a `Cargo.toml` is this release, with features that it has.
#[test]
fn manifests_that_pages_show_are_right() {
    let manifest = manifest();
    let features = manifest["features"].as_table().expect("a table");
    let version = manifest["package"]["version"].as_str().expect("a text");
    let mut seen = 0;
    for page in files("docs", ".md") {
        for block in between(&read(&page), "```toml\n", "```") {
            let shown: toml::Table = block.parse().expect("TOML");
            for (kind, dependencies) in shown {
                let ours = &dependencies["advisory-locking"];
                let required = ours["version"].as_str().expect("a text");
                assert!(version.starts_with(required), "{kind}: {required:?}");
                for feature in ours["features"].as_array().expect("a list") {
                    seen += 1;
                    let there = features.contains_key(feature.as_str().expect("a text"));
                    assert!(there, "{}: no feature {feature}", page.display());
                    // The kit for unit tests never goes into the program.
                    let kit = feature.as_str() == Some("testing");
                    assert!(!kit || kind == "dev-dependencies", "{}", page.display());
                }
            }
        }
    }
    assert!(seen > 5, "only {seen} features");
}

/// A scheme says where it comes from, how many keys it has in which space, and what is dangerous about it.
#[test]
fn every_scheme_warns() {
    let mut seen = 0;
    for file in files("src/schemes", ".rs") {
        let text = read(&file);
        let functions: Vec<_> = text.split("\npub fn ").collect();
        for (before, function) in functions.iter().zip(functions.iter().skip(1)) {
            seen += 1;
            let documentation: Vec<_> = before
                .lines()
                .rev()
                .take_while(|line| line.starts_with("///") || line.starts_with("#["))
                .collect();
            let documentation = documentation.join("\n");
            let says = |one_of: &[&str]| one_of.iter().any(|text| documentation.contains(text));
            let name = function.split(['(', '<']).next().expect("a name");
            assert!(says(&["/// Source: ", "/// Source and "]), "{name}");
            assert!(says(&["**Dangerous:**", "angers "]), "{name}");
            assert!(says(&["/// # Shape and units"]), "{name}");
            assert!(
                says(&["/// One `i64`", "/// A pair of `i32`", "/// Either"]),
                "{name}"
            );
            assert!(says(&[" keys", "always "]), "{name}");
        }
    }
    assert_eq!(seen, 22, "functions");
}

/// A page that is in the directory but not in the guide would never be seen, nor its program compiled. A recipe names its program.
#[test]
fn every_page_is_in_the_guide() {
    let guide = read("src/guide.rs");
    let examples = examples();
    let mut recipes = 0;
    for page in files("docs", ".md") {
        let name = page
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name");
        assert!(guide.contains(&format!("= \"{name}\";")), "{name}");
        let text = read(&page);
        for program in between(&text, "The program `examples/", ".rs`") {
            assert!(examples.contains_key(program), "{name}: no {program}");
            let head = read(format!("examples/{program}.rs"));
            let link = format!("`docs/{name}.md`");
            assert!(head.contains(&link), "{program} does not lead to {link}");
            recipes += 1;
        }
    }
    assert_eq!(recipes, 6);
}

/// Each example is in the manifest, with the features under which `scripts/examples` runs it and its first lines say so.
#[test]
fn every_example_is_run() {
    let examples = examples();
    let named: BTreeSet<_> = files("examples", ".rs")
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    assert_eq!(named, examples.keys().cloned().collect());

    let script = read("scripts/examples");
    for (name, features) in examples {
        let run = script.lines().any(|line| {
            let words: Vec<_> = line.trim().trim_matches('\'').split_whitespace().collect();
            words.starts_with(&[&name, &features])
        });
        assert!(run, "scripts/examples does not run {name} with {features}");
        let head = read(format!("examples/{name}.rs"));
        let command = format!("--example {name} --features {features}\n");
        let shown = head.contains(&command) || head.contains(&format!("scripts/{name} "));
        assert!(shown, "{name} does not show how to run it");
    }
}
