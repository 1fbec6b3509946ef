//! feature-matrix.md agrees with Cargo.toml.

use std::collections::{BTreeMap, BTreeSet};

use crate::documents::manifest;

const MATRIX: &str = include_str!("../../feature-matrix.md");

/// Returns the cells of the table under a heading of the matrix, without its head.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let section = MATRIX
        .split("\n## ")
        .find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'))
        .unwrap_or_else(|| panic!("feature-matrix.md has no heading {heading:?}"));
    let rows: Vec<Vec<_>> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .skip(1)
        .filter(|line| line.starts_with('`'))
        .map(|line| line.split(" | ").collect())
        .collect();
    assert!(!rows.is_empty(), "no rows under {heading:?}");
    rows
}

/// Returns the first cells under a heading: names in back-ticks, each once.
fn names(heading: &str) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    for row in rows(heading) {
        let name = row[0]
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'))
            .unwrap_or_else(|| panic!("under {heading:?}: {row:?} begins with no `name`"));
        assert!(names.insert(name), "under {heading:?}: {name} twice");
    }
    names
}

/// Returns the public features. `default` is empty, and a name with `_` in front is private.
fn features() -> BTreeSet<String> {
    let manifest = manifest();
    let features = manifest["features"].as_table().expect("a table");
    features
        .keys()
        .filter(|name| *name != "default" && !name.starts_with('_'))
        .cloned()
        .collect()
}

/// Returns the optional dependencies with their version requirements.
fn optional_dependencies() -> Vec<(String, String)> {
    let manifest = manifest();
    let dependencies = manifest["dependencies"].as_table().expect("a table");
    dependencies
        .iter()
        .filter(|(_, dependency)| dependency.get("optional") == Some(&toml::Value::Boolean(true)))
        .map(|(name, dependency)| {
            let version = dependency["version"].as_str().expect("a version");
            (name.clone(), version.to_owned())
        })
        .collect()
}

#[test]
fn every_feature_has_a_row_and_every_row_a_feature() {
    let features = features();
    assert!(features.contains("rusqlite"), "{features:?}");
    let [adapters, tools] = ["Adapters", "Keys and tools"].map(names);
    assert!(adapters.is_disjoint(&tools), "{adapters:?}, {tools:?}");
    let rows: BTreeSet<String> = adapters.union(&tools).map(ToString::to_string).collect();
    assert_eq!(rows, features, "feature-matrix.md, against Cargo.toml");
    assert_eq!(names("Capabilities"), adapters, "Capabilities, Adapters");
}

/// A type without its adapter is an error of the compiler, whose notes name the features that are
/// off. `names("Adapters")` are the features of connections and pools.
#[test]
fn compiler_notes_name_each_adapter_feature() {
    const PORTS: [&str; 4] = [
        include_str!("../../src/session.rs"),
        include_str!("../../src/session/asynchronous.rs"),
        include_str!("../../src/session/pool.rs"),
        include_str!("../../src/connection/blocking.rs"),
    ];
    for feature in names("Adapters") {
        let condition = format!("not(feature = \"{feature}\"),");
        let note = format!("needs the feature `{feature}`, which is off");
        let named = PORTS.iter().any(|port| {
            let after = port.split(&condition).nth(1);
            after.is_some_and(|after| after.lines().take(5).any(|line| line.contains(&note)))
        });
        assert!(named, "no note of a port names {feature}");
    }
}

#[test]
fn no_feature_is_on_by_default() {
    assert_eq!(
        manifest()["features"]["default"],
        toml::Value::Array(Vec::new())
    );
}

/// Without `dep:` in some feature, an optional dependency would be a feature itself.
#[test]
fn no_dependency_is_a_feature_by_accident() {
    let manifest = manifest();
    let named: BTreeSet<_> = manifest["features"]
        .as_table()
        .expect("a table")
        .values()
        .flat_map(|list| list.as_array().expect("a list"))
        .filter_map(|entry| entry.as_str()?.strip_prefix("dep:"))
        .collect();
    for (dependency, _) in optional_dependencies() {
        assert!(
            named.contains(&*dependency),
            "no feature has dep:{dependency}"
        );
    }
}

fn rust_version() -> String {
    let manifest = manifest();
    let version = manifest["package"]["rust-version"].as_str();
    version.expect("a text").to_owned()
}

#[test]
fn versions_are_those_of_the_manifest_and_the_lock_file() {
    let rust = rust_version();
    // A published package may lack it.
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"));
    for row in rows("Adapters") {
        let [feature, _, _, client, tested, minimum] = row[..] else {
            panic!("{row:?} has not six cells");
        };
        assert!(
            minimum.starts_with(&rust),
            "{feature}: Rust {rust}, not {minimum}"
        );
        let (name, version) = optional_dependencies()
            .into_iter()
            .find(|(name, _)| client.split(' ').next() == Some(&**name))
            .unwrap_or_else(|| panic!("{feature}: no optional dependency is {client}"));
        assert_eq!(client, format!("{name} `{version}`"), "{feature}");
        if let Ok(lock) = &lock {
            let (tested_name, tested_version) = tested.split_once(' ').expect("name and version");
            assert_eq!(tested_name, name, "{feature}");
            let package = format!("name = \"{name}\"\nversion = \"{tested_version}\"");
            assert!(
                lock.contains(&package),
                "{feature}: Cargo.lock has not {tested}"
            );
        }
    }
}

/// The servers of `scripts/test-versions`. The versions that Debian installs are not in a file.
#[test]
fn server_versions_are_those_that_a_script_runs() {
    let script = crate::read("scripts/test-versions");
    let (_, versions) = script.split_once("set -- ").expect("default versions");
    let versions = versions.lines().next().unwrap_or_default();
    let text = crate::read("feature-matrix.md").replace('\n', " ");
    let tested = crate::documents::texts_between(&text, "also run with PostgreSQL ", ",");
    let [tested] = tested[..] else {
        panic!("feature-matrix.md names its servers in one sentence, not in {tested:?}");
    };
    let mut seen = 0;
    for version in versions.split(' ').filter(|word| *word != "pgbouncer") {
        seen += 1;
        assert!(tested.contains(version), "{version} is not in {tested:?}");
    }
    assert_eq!(seen, 2, "oldest and newest");
}

/// Returns the optional dependencies of a feature, with those of the private features in it.
fn dependencies_of(manifest: &toml::Table, feature: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in manifest["features"][feature].as_array().expect("a list") {
        let entry = entry.as_str().expect("a text");
        if let Some(name) = entry.strip_prefix("dep:") {
            found.insert(name.to_owned());
        } else if entry.starts_with('_') {
            found.extend(dependencies_of(manifest, entry));
        }
    }
    found
}

/// A tool's row lists its optional dependencies as in the manifest, or `-`.
#[test]
fn tool_rows_list_their_dependencies() {
    let manifest = manifest();
    let versions: BTreeMap<_, _> = optional_dependencies().into_iter().collect();
    for row in rows("Keys and tools") {
        let [feature, _, brings, minimum] = row[..] else {
            panic!("{row:?} has not four cells");
        };
        let feature = feature.trim_matches('`');
        let brought: Vec<_> = dependencies_of(&manifest, feature)
            .iter()
            .map(|name| format!("{name} `{}`", versions[name]))
            .collect();
        let brought = match brought.is_empty() {
            true => "-".to_owned(),
            false => brought.join(", "),
        };
        assert_eq!(brings, brought, "{feature}");
        let rust = rust_version();
        assert!(minimum.starts_with(&rust), "{feature}: Rust {rust}");
    }
}
