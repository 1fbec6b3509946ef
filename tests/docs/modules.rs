//! A module imports only from modules below it, in the order that DESIGN.md lists.
//!
//! The modules of the crate's first level count, and each module of `backends`. Tests are free to
//! import; so are the modules that re-export and document.

use std::collections::BTreeMap;

use crate::{read, section, tree};

/// Re-exports and documentation.
const FREE: [&str; 4] = [
    "src/lib.rs",
    "src/prelude.rs",
    "src/guide.rs",
    "backends/mod.rs",
];

/// Returns the position of each module, from the top.
fn order() -> BTreeMap<String, usize> {
    let design = read("DESIGN.md");
    let layers = section(&design, "Layers");
    let list = layers
        .split("The order of the modules, from top to bottom:\n\n```text\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the order of the modules");
    let mut order = BTreeMap::new();
    for line in list.lines() {
        let (prefix, names) = match line.split_once(": ") {
            Some((prefix, names)) => (format!("{prefix}::"), names),
            None => (String::new(), line),
        };
        for name in names.split(", ") {
            let position = order.len();
            let twice = order.insert(format!("{prefix}{name}"), position);
            assert!(twice.is_none(), "{name} twice");
        }
    }
    order
}

/// Returns the modules of the items that the crate's root and `backends` re-export.
fn re_exports() -> BTreeMap<String, Vec<String>> {
    let mut items = BTreeMap::new();
    for (file, base) in [("src/lib.rs", None), ("backends/mod.rs", Some("backends"))] {
        for path in paths(&read(file), "pub use ") {
            let (item, module) = path.split_last().expect("a path");
            let base = base.into_iter().map(str::to_owned);
            items.insert(item.clone(), base.chain(module.iter().cloned()).collect());
        }
    }
    items
}

/// Returns the paths of the `use` declarations that begin like this, without braces.
fn paths(text: &str, declaration: &str) -> Vec<Vec<String>> {
    text.split(declaration)
        .skip(1)
        .filter_map(|rest| rest.split(';').next())
        .flat_map(expand)
        .collect()
}

/// Expands `a::{b, c::d}` to `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let segments = |text: &str| -> Vec<String> {
        text.split("::")
            .map(|segment| segment.split(" as ").next().unwrap_or_default().trim())
            .filter(|segment| !segment.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let Some((head, body)) = tree.split_once('{') else {
        return vec![segments(tree)];
    };
    let body = body.rsplit_once('}').map_or(body, |(body, _)| body);
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in body.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match parts.last_mut() {
            Some(part) if c != ',' || depth > 0 => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
        .iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expand(part))
        .map(|path| [segments(head), path].concat())
        .collect()
}

/// Returns the text without comments and without its unit tests.
fn code(text: &str) -> String {
    let code: Vec<_> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let code = code.join("\n");
    match code.split_once("#[cfg(test)]\nmod tests {") {
        Some((code, _)) => code.to_owned(),
        None => code,
    }
}

/// Returns every path in the code that begins with `crate` or `super`.
fn imports(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for path in paths(code, "use ") {
        if ["crate", "super", "self"].contains(&path.first().map_or("", String::as_str)) {
            found.push(path);
        }
    }
    let is_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
    for word in code.split(|c: char| !is_path(c)) {
        if word.starts_with("crate::") || word.starts_with("super::") {
            let path: Vec<_> = word.split("::").map(str::to_owned).collect();
            if path.iter().all(|segment| !segment.is_empty()) {
                found.push(path);
            }
        }
    }
    found
}

/// Returns the module of the first level that a path leads to.
fn top(path: &[String], re_exports: &BTreeMap<String, Vec<String>>) -> Option<String> {
    match path {
        [] => None,
        [first, second, ..] if first == "backends" => match re_exports.get(second) {
            Some(module) => top(module, re_exports),
            None => Some(format!("backends::{second}")),
        },
        [first, ..] => match re_exports.get(first) {
            Some(module) => top(module, re_exports),
            None => Some(first.clone()),
        },
    }
}

/// Returns the file's own module as a path from the crate's root.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let path = path.strip_prefix("src/").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

fn is_test(file: &str) -> bool {
    ["tests", "fuzz", "fuzzing"]
        .iter()
        .any(|name| file.contains(&format!("/{name}/")) || file.ends_with(&format!("/{name}.rs")))
}

/// Returns the imports between modules, each with a file that has it.
fn edges() -> BTreeMap<(String, String), String> {
    let re_exports = re_exports();
    let mut edges = BTreeMap::new();
    for file in tree("src").into_iter().chain(tree("backends")) {
        if !file.ends_with(".rs") || FREE.contains(&&*file) || is_test(&file) {
            continue;
        }
        let module = module_of(&file);
        let from = top(&module, &re_exports).expect("a module");
        for path in imports(&code(&read(&file))) {
            let mut base = module.clone();
            let mut rest = &path[..];
            while let Some((first, others)) = rest.split_first() {
                match &**first {
                    "crate" => base.clear(),
                    "super" => drop(base.pop()),
                    "self" => {}
                    _ => break,
                }
                rest = others;
            }
            base.extend_from_slice(rest);
            if let Some(to) = top(&base, &re_exports)
                && to != from
            {
                edges.insert((from.clone(), to), file.clone());
            }
        }
    }
    edges
}

#[test]
fn modules_import_only_from_below() {
    let order = order();
    let mut wrong = Vec::new();
    let edges = edges();
    assert!(edges.len() > 30, "only {} imports", edges.len());
    for ((from, to), file) in edges {
        let position = |module: &str| match order.get(module) {
            Some(position) => *position,
            None => panic!("{file}: {module} is not in the order of DESIGN.md"),
        };
        if position(&from) < position(&to) {
            continue;
        }
        wrong.push(format!("{file}: {from} imports {to}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nested_use_declarations_are_expanded() {
    let expanded: Vec<_> = expand("crate::{a::{b, c}, d}")
        .iter()
        .map(|path| path.join("::"))
        .collect();
    assert_eq!(expanded, ["crate::a::b", "crate::a::c", "crate::d"]);
}
