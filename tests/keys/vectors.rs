//! The vectors of `vectors.toml`. A section has the name of the function that it tests.

use std::collections::BTreeSet;

use advisory_locking::{KeyPart, LockError, LockKey, RawLockKey, schemes};
use toml::{Table, Value};

const VECTORS: &str = include_str!("vectors.toml");

/// Returns the vectors of a section: the input and the key that the other system derives.
fn section(name: &str) -> Vec<(Value, RawLockKey)> {
    let file: Table = VECTORS.parse().expect("TOML");
    let keys = file[name]["keys"].as_array().expect("a list").clone();
    keys.into_iter()
        .map(|vector| match vector {
            Value::Array(vector) => match <[Value; 2]>::try_from(vector) {
                Ok([input, key]) => (input, space(&key)),
                Err(vector) => panic!("{name}: {vector:?} is not an input and a key"),
            },
            other => panic!("{name}: {other} is no list"),
        })
        .collect()
}

fn space(key: &Value) -> RawLockKey {
    match key {
        Value::Integer(number) => RawLockKey::Single(*number),
        Value::Array(pair) => {
            let half = |index: usize| i32::try_from(integer(&pair[index])).expect("an i32");
            RawLockKey::Pair(half(0), half(1))
        }
        other => panic!("{other} is no key"),
    }
}

fn integer(value: &Value) -> i64 {
    value.as_integer().expect("an integer")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(text).collect()
}

/// Compares `derive` with its section, and the text of the key with an input that is a text.
fn check(name: &str, at_least: usize, derive: impl Fn(&Value) -> LockKey) {
    let vectors = section(name);
    assert!(vectors.len() >= at_least, "{name}: {}", vectors.len());
    for (input, key) in vectors {
        let derived = derive(&input);
        assert_eq!(derived.raw(), key, "{name} of {input}");
        match input {
            Value::String(text) if text.len() < 100 && text.chars().all(char::is_alphanumeric) => {
                assert_eq!(derived.text(), Some(&*text), "{name}");
            }
            _ => {}
        }
    }
}

fn check_text(name: &str, at_least: usize, derive: impl Fn(&str) -> LockKey) {
    check(name, at_least, |input| derive(text(input)));
}

fn check_fallible(
    name: &str,
    at_least: usize,
    derive: impl Fn(&str) -> Result<LockKey, LockError>,
) {
    check_text(name, at_least, |text| derive(text).expect(text));
}

#[test]
fn crc32() {
    check_text("crc32", 26, schemes::crc32);
}

#[test]
fn django_pglocks() {
    check_text("django_pglocks", 21, schemes::django_pglocks);
}

#[test]
fn with_advisory_lock() {
    let none = |name: &str| schemes::with_advisory_lock(name, None);
    check_text("with_advisory_lock", 21, none);
    check("with_advisory_lock_number", 4, |number| {
        schemes::with_advisory_lock_number(integer(number), None)
    });
}

#[test]
fn sha1_le() {
    check_text("sha1_le", 21, schemes::sha1_le);
}

#[test]
fn pals() {
    check("pals", 27, |input| match texts(input)[..] {
        [name] => schemes::pals(None, name),
        [app_name, name] => schemes::pals(Some(app_name), name),
        _ => panic!("{input}"),
    });
}

#[test]
fn sha256_be_joined() {
    check("sha256_be_joined", 33, |input| {
        let ids: Vec<&dyn KeyPart> = input
            .as_array()
            .expect("a list")
            .iter()
            .map(|id| match id {
                Value::Integer(number) => number as &dyn KeyPart,
                Value::String(text) => text as &dyn KeyPart,
                other => panic!("{other}"),
            })
            .collect();
        schemes::sha256_be_joined(ids)
    });
}

#[test]
fn django_pglock() {
    check_fallible("django_pglock", 21, schemes::django_pglock);
}

#[test]
fn npm_advisory_lock() {
    check_text("npm_advisory_lock", 21, schemes::npm_advisory_lock);
}

#[test]
fn md5_be() {
    check_fallible("md5_be", 34, schemes::md5_be);
}

#[test]
fn sqlalchemy_dlock() {
    let derive = |name: &str| schemes::sqlalchemy_dlock(name);
    check_text("sqlalchemy_dlock", 20, derive);
}

#[test]
fn sqlx() {
    check_text("sqlx", 21, schemes::sqlx);
}

#[test]
fn distributed_lock() {
    check_text("distributed_lock", 13, schemes::distributed_lock);
    // What needs no hashing is the same with it.
    check_text("distributed_lock_unhashed", 21, schemes::distributed_lock);
    check_fallible(
        "distributed_lock_unhashed",
        21,
        schemes::distributed_lock_unhashed,
    );
    for (name, _) in section("distributed_lock") {
        let refused = schemes::distributed_lock_unhashed(text(&name));
        assert!(refused.is_err(), "{name}");
    }
}

#[test]
fn hashtext() {
    check_fallible("hashtext", 21, schemes::hashtext);
    check_fallible("hashtextextended", 21, |text| {
        schemes::hashtextextended(text, 0)
    });
}

#[test]
fn migrations() {
    check("golang_migrate", 27, |input| {
        let names = texts(input);
        let (database, additional) = names.split_first().expect("a database");
        schemes::golang_migrate(database, additional)
    });
    check_text("rails_migrations", 21, schemes::rails_migrations);
    check_text("sqlx_migrations", 8, schemes::sqlx_migrations);
    check("goose_migrations", 1, |_| schemes::goose_migrations());
    check("prisma_migrations", 1, |_| schemes::prisma_migrations());
}

/// Logs show the text.
#[test]
fn text_of_a_key_has_each_value() {
    let pair = schemes::hashtext_pair("report", "daily").expect("valid texts");
    for (key, text) in [
        (pair, "report/daily"),
        (schemes::pals(Some("app"), "report"), "app.report"),
        (
            schemes::sha256_be_joined(["report", "daily"]),
            "report-daily",
        ),
        (
            schemes::golang_migrate("app", &["public", "migrations"]),
            r"public\u{0}migrations\u{0}app",
        ),
        (schemes::with_advisory_lock("report", Some("7")), "report"),
        (schemes::with_advisory_lock_number(-7, Some("8")), "-7"),
    ] {
        assert_eq!(key.text(), Some(text));
    }
}

/// Integers that the other systems use as raw keys.
#[test]
fn integers() {
    check("integers", 6, |input| match input {
        Value::Integer(number) => LockKey::from(*number),
        pair => LockKey::from(space(pair)),
    });
}

/// Checks that a test reads each section.
#[test]
fn every_section_is_read() {
    let file: Table = VECTORS.parse().expect("TOML");
    let sections: BTreeSet<_> = file.keys().map(String::as_str).collect();
    let source = include_str!("vectors.rs");
    for section in sections {
        assert!(
            source.contains(&format!("(\"{section}\", ")),
            "{section} is in vectors.toml but in no test"
        );
    }
}
