//! Documents name files, features and examples that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::{ROOT, files, read};

/// Returns the documents of the root directory and the guide's pages.
fn documents() -> BTreeSet<PathBuf> {
    files("", ".md")
        .into_iter()
        .chain(files("docs", ".md"))
        .collect()
}

pub(crate) fn manifest() -> toml::Table {
    read("Cargo.toml").parse().expect("Cargo.toml is TOML")
}

/// Returns each example with its features in the manifest.
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

/// Returns every text between two markers.
pub(crate) fn texts_between<'t>(text: &'t str, before: &str, after: &str) -> Vec<&'t str> {
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split_once(after))
        .map(|(inside, _)| inside)
        .collect()
}

/// Both kinds of links: `[text](target)` and `[label]: target`.
#[test]
fn links_lead_to_files() {
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        let definitions = text
            .lines()
            .filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
            .map(|(_, target)| target);
        for target in texts_between(&text, "](", ")")
            .into_iter()
            .chain(definitions)
        {
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            seen += 1;
            let directory = document.parent().expect("a directory");
            let exists = directory.join(target).exists();
            assert!(exists, "{}: no {target}", document.display());
        }
    }
    assert!(seen > 30, "only {seen} links");
}

/// A page's links have a twin for the documentation, where `diesel.md` would lead nowhere. An
/// inline link cannot have one.
#[test]
fn links_of_pages_are_in_the_guide() {
    let twins = [read("src/guide/pages.md"), read("src/guide/items.md")].concat();
    for page in files("docs", ".md") {
        let text = read(&page);
        for target in texts_between(&text, "](", ")") {
            assert!(
                target.contains("://"),
                "{}: inline {target}",
                page.display()
            );
        }
        for line in text.lines() {
            let definition = line
                .strip_prefix('[')
                .and_then(|line| line.split_once("]: "));
            let Some((label, target)) = definition else {
                continue;
            };
            if !target.contains("://") || target.contains("docs.rs/advisory-locking/") {
                let twin = format!("[{label}]: crate::");
                assert!(twins.contains(&twin), "{}: [{label}]", page.display());
            }
        }
    }
}

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
            // CONTRIBUTING.md calls a new adapter `client` and a new backend `database`.
            let exists_today = !path.contains("client") && !path.contains("database");
            if exists_today && ours.iter().any(|directory| path.starts_with(directory)) {
                seen += 1;
                let path = path.split("::").next().unwrap_or_default();
                let there = Path::new(ROOT).join(path).exists();
                assert!(there, "{}: no {path}", document.display());
            }
        }
    }
    assert!(seen > 10, "only {seen} paths");
}

#[test]
fn features_in_commands_exist() {
    let manifest = manifest();
    let features = manifest["features"].as_table().expect("a table");
    let mut seen = 0;
    for file in documents().into_iter().chain(files("examples", ".rs")) {
        // Other crates have other features.
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

/// A `Cargo.toml` of a page requires this release and features that it has.
#[test]
fn manifests_of_pages_are_valid() {
    let manifest = manifest();
    let features = manifest["features"].as_table().expect("a table");
    let version = manifest["package"]["version"].as_str().expect("a text");
    let mut seen = 0;
    for page in files("docs", ".md") {
        for block in texts_between(&read(&page), "```toml\n", "```") {
            let shown: toml::Table = block.parse().expect("TOML");
            for (kind, dependencies) in shown {
                let ours = &dependencies["advisory-locking"];
                let required = ours["version"].as_str().expect("a text");
                assert!(version.starts_with(required), "{kind}: {required:?}");
                for feature in ours["features"].as_array().expect("a list") {
                    seen += 1;
                    let there = features.contains_key(feature.as_str().expect("a text"));
                    assert!(there, "{}: no feature {feature}", page.display());
                    // The kit for unit tests is no dependency of the program.
                    let kit = feature.as_str() == Some("testing");
                    assert!(!kit || kind == "dev-dependencies", "{}", page.display());
                }
            }
        }
    }
    assert!(seen > 5, "only {seen} features");
}

/// A scheme documents its source, its number of keys, its key space and its dangers.
#[test]
fn every_scheme_documents_its_dangers() {
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

/// The guide includes every page, and a recipe names its program.
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
        for program in texts_between(&text, "The program `examples/", ".rs`") {
            assert!(examples.contains_key(program), "{name}: no {program}");
            let head = read(format!("examples/{program}.rs"));
            let link = format!("`docs/{name}.md`");
            assert!(head.contains(&link), "{program} does not lead to {link}");
            recipes += 1;
        }
    }
    assert_eq!(recipes, 6);
}

/// The manifest lists each example with the features that `scripts/examples` uses and its first
/// lines show.
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
        // `scripts/quickstart` runs two of them.
        let script = name.replace("quickstart_sea_orm", "quickstart sea-orm");
        let shown = head.contains(&command) || head.contains(&format!("scripts/{script} "));
        assert!(shown, "{name} does not show how to run it");
    }
}

#[test]
fn hand_off_figures_are_those_of_the_results() {
    let documented = read("src/lock_manager/options.rs").replace("**", "");
    let results = read("benches/results/lock-manager.csv");
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for line in results.lines() {
        let Some(row) = line.strip_prefix("\"4 processes, held for 1 ms, handed off for\",\"")
        else {
            continue;
        };
        let (time, rest) = row.split_once('"').expect("a quoted text");
        let (_, value) = rest.rsplit_once(',').expect("a value");
        let value = value.parse().expect("a number");
        figures.entry(time).or_default().push(value);
    }
    assert!(figures.len() >= 5, "{figures:?}");
    for (time, figures) in figures {
        let [holders, median, lower] = figures[..] else {
            panic!("{time}: {figures:?}");
        };
        let row = format!("/// | {time} | {holders} | {median:.2}, {lower:.2} |");
        assert!(documented.contains(&row), "{row}");
    }
}
