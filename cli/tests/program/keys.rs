//! Keys, without a server.

use std::collections::BTreeMap;

use crate::program::{Done, program, run_command};

pub(crate) fn offline(arguments: &[&str]) -> Done {
    let mut command = program(arguments);
    command.env("DATABASE_URL", "postgres://127.0.0.1:1/none");
    run_command(command)
}

#[test]
fn key_of_a_name_is_that_of_the_library() {
    for (arguments, key) in [
        (
            &["key", "nightly"][..],
            advisory_locking::LockKey::from("nightly"),
        ),
        (
            &["key", "sync", "--part", "4"],
            advisory_locking::LockKey::from(("sync", 4)),
        ),
        (
            &["key", "sync", "--part", "-4"],
            advisory_locking::LockKey::from(("sync", -4)),
        ),
        (&["key", "--key=-5"], advisory_locking::LockKey::from(-5)),
        (&["key", "--key", "-5"], advisory_locking::LockKey::from(-5)),
        (&["key", "--", "-5"], advisory_locking::LockKey::from("-5")),
        (&["key", ""], advisory_locking::LockKey::from("")),
    ] {
        let done = offline(arguments);
        let printed = done.assert_code(0).stdout.trim();
        assert_eq!(
            format!("{:?}", key.raw()),
            format!("Single({printed})"),
            "{arguments:?}"
        );
    }
    offline(&["key", "--key=-1,2"])
        .assert_code(0)
        .assert_stdout("-1,2");
}

/// The names of the schemes on the command line are those of the library's functions.
#[test]
fn keys_of_all_schemes_equal_the_vectors() {
    let vectors = include_str!("../../../tests/keys/vectors.toml");
    let vectors: BTreeMap<String, toml::Table> = toml::from_str(vectors).unwrap();
    let mut seen = 0;
    for scheme in [
        "crc32",
        "django_pglock",
        "md5_be",
        "sha1_le",
        "npm_advisory_lock",
        "sqlx",
        "hashtext",
    ] {
        let rows = vectors[scheme]["keys"].as_array().unwrap();
        let rows = rows
            .iter()
            .filter_map(|row| match row.as_array()?.as_slice() {
                // An argument cannot contain NUL.
                [name, key @ ..] => Some((name.as_str().filter(|name| !name.contains('\0'))?, key)),
                [] => None,
            });
        for (name, key) in rows.take(4) {
            let key: Vec<String> = key.iter().map(ToString::to_string).collect();
            let expected = key.join(",").replace(['[', ']', ' '], "");
            let option = scheme.replace('_', "-");
            let done = offline(&["key", &format!("--scheme={option}"), "--", name]);
            assert_eq!(
                done.assert_code(0).stdout.trim(),
                expected,
                "{scheme}: {name:?}"
            );
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} keys");
}

/// `with_advisory_lock(42)` and `with_advisory_lock("42")` are two locks in Ruby.
#[test]
fn number_and_text_of_a_ruby_lock_have_two_keys() {
    let number = "--scheme=with-advisory-lock-number";
    let key_of = |arguments: &[&str]| {
        let done = offline(arguments);
        done.assert_code(0).stdout.trim().to_owned()
    };
    assert_eq!(key_of(&["key", number, "42"]), "42,0");
    assert_eq!(key_of(&["key", number, "42", "--prefix=7"]), "42,7");
    assert_ne!(
        key_of(&["key", "--scheme=with-advisory-lock", "42"]),
        "42,0"
    );
    let refused = offline(&["key", number, "report"]);
    refused.assert_code(64).assert_stderr("integer");
}

#[test]
fn all_schemes_are_listed_with_and_without_json() {
    let done = offline(&["key", "test", "--all"]);
    done.assert_code(0)
        .assert_stdout("crc32")
        .assert_stdout("3632233996");
    let done = offline(&["key", "test", "--all", "--json"]);
    done.assert_code(0)
        .assert_stdout("{\"key\":\"3632233996\",\"key_space\":\"single\",\"scheme\":\"crc32\"}");
    done.assert_stdout("\"version\":1");
}

#[test]
fn invalid_key_or_name_is_a_usage_error() {
    for (arguments, text) in [
        (&["key"][..], "NAME"),
        (&["key", "--key=one"], "64-bit integer"),
        (&["key", "a", "--key=1"], "cannot be used"),
        (&["key", "--scheme=django-pglock", ""], "empty"),
        (&["key", "--scheme=crc32", "a", "--part", "b"], "--part"),
        (&["key", "--scheme=none", "a"], "none"),
        (&["key", "--all", "--key=1"], "--all"),
    ] {
        offline(arguments).assert_code(64).assert_stderr(text);
    }
}
