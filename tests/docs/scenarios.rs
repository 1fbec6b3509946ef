//! tests/SCENARIOS.md names tests that exist and are run, and skips no number.

use std::fs;
use std::path::Path;

use crate::files;

const TABLE: &str = include_str!("../SCENARIOS.md");
const COUNT: usize = 92;

/// Returns the rows: a number, a scenario, its tests.
fn rows() -> Vec<[&'static str; 3]> {
    TABLE
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| {
            let cells: Vec<_> = line.split(" | ").collect();
            <[_; 3]>::try_from(cells).unwrap_or_else(|cells| panic!("not three cells: {cells:?}"))
        })
        .filter(|[number, ..]| !["nr", "who", "system"].contains(number))
        .collect()
}

/// Returns the rows with a number. The others are promises of other systems and refer to them.
fn scenarios() -> Vec<[&'static str; 3]> {
    let is_scenario = |row: &[&str; 3]| row[0].bytes().all(|byte| byte.is_ascii_digit());
    rows().into_iter().filter(is_scenario).collect()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// Returns the reason why a name is no test that runs, or `None`.
fn fault_of(name: &str) -> Option<String> {
    // tests/compile_fail.rs compiles every file of this directory.
    if name.starts_with("tests/ui/fail/") {
        return read(name).is_none().then(|| "there is no such file".into());
    }
    let Some((path, function)) = name.split_once("::") else {
        return Some("it is no `file::function`".into());
    };
    let Some(text) = read(path) else {
        return Some("there is no such file".into());
    };
    // A program without the test harness is one test with a name.
    if text.contains(&format!("const NAME: &str = \"{function}\";")) {
        return None;
    }
    let [plain, generic] = ["(", "<"].map(|after| format!("fn {function}{after}"));
    let Some((before, after)) = text
        .split_once(&plain)
        .or_else(|| text.split_once(&generic))
    else {
        return Some("there is no such function".into());
    };
    // A list in its program runs a case on every adapter.
    let lists = match path.split_once("/cases/") {
        Some((program, _)) => files(program, ".rs").iter().map(crate::read).collect(),
        // A list below it runs a generic test on every pool.
        None if text.contains(&generic) => after.to_owned(),
        None => String::new(),
    };
    if !lists.is_empty() {
        let mounted = lists
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|word| word == function);
        return (!mounted).then(|| "no list of cases has it".into());
    }
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    let is_test = ["#[test]", "#[tokio::test"]
        .iter()
        .any(|attribute| attributes.contains(attribute));
    (!is_test).then(|| "it is not marked as a test".into())
}

/// Returns the names in back-ticks that lead to tests.
fn tests(shown_by: &str) -> Vec<&str> {
    let names = shown_by.split('`').skip(1).step_by(2);
    names.filter(|name| name.contains('/')).collect()
}

#[test]
fn no_scenario_is_missing() {
    let numbers: Vec<_> = scenarios()
        .iter()
        .map(|[number, ..]| number.parse::<usize>().expect("a number"))
        .collect();
    assert_eq!(numbers, (1..=COUNT).collect::<Vec<_>>());
}

#[test]
fn every_scenario_has_a_test_or_a_reason() {
    for [number, scenario, shown_by] in scenarios() {
        let reasons = ["Not applicable: ", "Open: "];
        let reason = reasons.iter().find_map(|word| shown_by.strip_prefix(word));
        assert!(
            !tests(shown_by).is_empty() || reason.is_some_and(|reason| reason.len() > 10),
            "{number}, {scenario}: neither a test nor a reason"
        );
    }
}

/// A promise refers to scenarios or tests, or is "not promised".
#[test]
fn every_promise_is_kept_somewhere() {
    let promises: Vec<_> = rows().into_iter().skip(COUNT).collect();
    assert!(promises.len() > 10, "only {} promises", promises.len());
    for [who, promise, here] in promises {
        let outside = here.split('`').step_by(2).collect::<String>();
        let numbers = outside.split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<usize> = numbers.filter_map(|number| number.parse().ok()).collect();
        assert!(
            numbers.iter().all(|number| (1..=COUNT).contains(number)),
            "{who}, {promise}: {numbers:?}"
        );
        let somewhere = !numbers.is_empty() || !tests(here).is_empty();
        assert!(
            somewhere || here.starts_with("not promised: "),
            "{who}, {promise}: nowhere"
        );
    }
}

#[test]
fn every_named_test_is_run() {
    let mut wrong = Vec::new();
    for [number, _, shown_by] in rows() {
        for name in tests(shown_by) {
            wrong.extend(fault_of(name).map(|fault| format!("{number}: {name}: {fault}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Limits use a monotonic clock.
#[test]
fn no_code_reads_the_wall_clock() {
    let mut seen = 0;
    for name in crate::tree("src")
        .into_iter()
        .chain(crate::tree("backends"))
    {
        seen += 1;
        assert!(!crate::read(&name).contains("SystemTime"), "{name}");
    }
    assert!(seen > 30, "only {seen} files");
}

/// The check itself can fail.
#[test]
fn missing_test_is_detected() {
    for name in [
        "tests/docs/scenarios.rs",
        "tests/no_such_file.rs::rows",
        "tests/docs/scenarios.rs::no_such_function",
        "tests/docs/scenarios.rs::rows",
        "tests/conformance/cases/waiting.rs::queue",
        "tests/ui/fail/no_such_file.rs",
    ] {
        assert!(fault_of(name).is_some(), "{name}");
    }
    assert_eq!(
        fault_of("tests/docs/scenarios.rs::no_scenario_is_missing"),
        None
    );
}
