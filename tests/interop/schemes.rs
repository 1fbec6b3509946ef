//! Table of the schemes: Python program, form of the request, and names.

use advisory_locking::schemes::{
    crc32, django_pglock, django_pglocks, hashtext, hashtext_pair, hashtextextended, md5_be, pals,
    sha1_le, sha256_be_joined, sqlalchemy_dlock,
};
use advisory_locking::{KeyPart, LockError, LockKey};

use crate::python::Part::{self, Number, Text};

/// The form of a Python client's request.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum KeyForm {
    /// Fails if the lock is contended.
    Try,
    /// Waits on the server.
    Wait,
}

/// A name in the form of the Python program, and the key that Rust derives from it.
pub(crate) struct Name {
    pub(crate) parts: Vec<Part>,
    pub(crate) key: LockKey,
}

pub(crate) struct Scheme {
    pub(crate) title: &'static str,
    pub(crate) program: &'static str,
    pub(crate) request: KeyForm,
    pub(crate) names: Vec<Name>,
}

/// Names whose CRC-32 and `hashtext` are negative for some and positive for others.
///
/// They are constant, so every run tests both signs.
const TEXTS: [&str; 12] = [
    "PR-1234",
    "sync(4)",
    "driver_update_1",
    "gold_leader",
    "ABCDEFGHI",
    "Zürich-東京-🔒",
    "é",
    "e\u{301}",
    "  both  ",
    "it's \"quoted\" \\ $1 %s",
    "line1\nline2",
    "0123456789abcdefghij0123456789abcdefghij0123456789abcdefghij0123456789abcdefghij0123456789abcdefghij",
];

fn name(parts: &[Part], key: LockKey) -> Name {
    Name {
        parts: parts.to_vec(),
        key,
    }
}

/// A name for each text.
fn texts(key: impl Fn(&str) -> LockKey) -> Vec<Name> {
    let names = TEXTS.into_iter().map(|text| name(&[Text(text)], key(text)));
    names.collect()
}

/// A name for each text, of a scheme that rejects some texts.
fn fallible(key: impl Fn(&str) -> Result<LockKey, LockError>) -> Vec<Name> {
    texts(|text| key(text).expect("a name"))
}

/// Names from which `psycopg_sql.py` derives the key with a SQL expression.
fn in_sql(
    expression: &'static str,
    more: &[Part],
    key: impl Fn(&str) -> Result<LockKey, LockError>,
) -> Vec<Name> {
    let mut names = fallible(key);
    for name in &mut names {
        name.parts.insert(0, Text(expression));
        name.parts.extend(more);
    }
    names
}

/// Integers, which are raw keys on both sides.
fn integers() -> Vec<Name> {
    [1, -1, 42, i64::MIN, i64::MAX]
        .map(|number| name(&[Number(number)], LockKey::from(number)))
        .into()
}

/// Names of several parts, joined or hashed one after the other.
fn tuples(key: impl Fn(&[&dyn KeyPart]) -> LockKey) -> Vec<Name> {
    let tuples: [&[Part]; 6] = [
        &[Text("SIGNUP-EMAIL"), Text("a@b.c")],
        &[Number(123)],
        &[Text("x"), Number(-7)],
        &[Text("東京"), Text(""), Number(i64::MIN)],
        &[Text("")],
        &[Text("a"), Text("b"), Text("c d")],
    ];
    tuples
        .map(|parts| {
            let ids: Vec<&dyn KeyPart> = parts
                .iter()
                .map(|part| match part {
                    Number(number) => number as &dyn KeyPart,
                    Text(text) => text as &dyn KeyPart,
                })
                .collect();
            name(parts, key(&ids))
        })
        .into()
}

pub(crate) fn all() -> Vec<Scheme> {
    let scheme = |title, program, request, parts: Vec<Vec<Name>>| Scheme {
        title,
        program,
        request,
        names: parts.into_iter().flatten().collect(),
    };
    let empty = |key| vec![name(&[Text("")], key)];
    let pairs = vec![
        name(&[Number(1), Number(2)], LockKey::from((1, 2))),
        name(&[Number(3), Number(-4)], LockKey::from((3, -4))),
    ];
    let applications = vec![
        name(
            &[Text("myapp"), Text("PR-1234")],
            pals(Some("myapp"), "PR-1234"),
        ),
        name(&[Text(""), Text("PR-1234")], pals(Some(""), "PR-1234")),
        name(
            &[Text("Zürich"), Text("東京-🔒")],
            pals(Some("Zürich"), "東京-🔒"),
        ),
    ];
    let seeded = |text: &str| hashtextextended(text, -7);
    let pair = |text: &str| hashtext_pair(text, "second");
    vec![
        scheme(
            "crc32",
            "django_crc32.py",
            KeyForm::Wait,
            vec![texts(crc32), empty(crc32(""))],
        ),
        scheme(
            "django_pglock",
            "with_django_pglock.py",
            KeyForm::Try,
            vec![fallible(django_pglock), integers()],
        ),
        scheme(
            "django_pglocks",
            "with_django_pglocks.py",
            KeyForm::Try,
            vec![
                texts(django_pglocks),
                empty(django_pglocks("")),
                integers(),
                pairs,
            ],
        ),
        scheme(
            "sha1_le",
            "psycopg_sha1.py",
            KeyForm::Try,
            vec![texts(sha1_le), empty(sha1_le(""))],
        ),
        scheme(
            "pals",
            "with_pals.py",
            KeyForm::Try,
            vec![texts(|text| pals(None, text)), applications],
        ),
        scheme(
            "sha256_be_joined",
            "sqlalchemy_sha256.py",
            KeyForm::Try,
            vec![
                texts(|text| sha256_be_joined([text])),
                tuples(|ids| sha256_be_joined(ids)),
            ],
        ),
        scheme(
            "sqlalchemy_dlock",
            "with_sqlalchemy_dlock.py",
            KeyForm::Try,
            vec![
                texts(|text| sqlalchemy_dlock(text)),
                empty(sqlalchemy_dlock("")),
                integers(),
            ],
        ),
        scheme(
            "md5_be",
            "asyncpg_md5.py",
            KeyForm::Try,
            vec![fallible(md5_be)],
        ),
        scheme(
            "md5_be (PormG)",
            "psycopg_sql.py",
            KeyForm::Try,
            vec![in_sql("md5", &[], md5_be)],
        ),
        scheme(
            "md5_be (PormG)",
            "pormg_block.py",
            KeyForm::Wait,
            vec![fallible(md5_be)],
        ),
        scheme(
            "hashtext",
            "psycopg_sql.py",
            KeyForm::Try,
            vec![in_sql("hashtext", &[], hashtext)],
        ),
        scheme(
            "hashtext_pair",
            "psycopg_sql.py",
            KeyForm::Try,
            vec![in_sql("hashtext_pair", &[Text("second")], pair)],
        ),
        scheme(
            "hashtextextended",
            "psycopg_sql.py",
            KeyForm::Try,
            vec![in_sql("hashtextextended", &[Number(-7)], seeded)],
        ),
        scheme(
            "LockKey (native)",
            "psycopg_native.py",
            KeyForm::Try,
            vec![
                texts(|text| LockKey::from(text)),
                tuples(|parts| LockKey::from_parts(parts)),
            ],
        ),
    ]
}
