//! Edge cases of names: rejected names and equal keys. No text makes a function panic.

use advisory_locking::{LockErrorKind, LockKey, RawLockKey, schemes};
use proptest::prelude::*;

/// Calls every function that takes a text. Returns name and key, or the kind of the error.
fn all(text: &str) -> Vec<(&'static str, Result<LockKey, LockErrorKind>)> {
    vec![
        ("crc32", Ok(schemes::crc32(text))),
        ("django_pglocks", Ok(schemes::django_pglocks(text))),
        (
            "with_advisory_lock",
            Ok(schemes::with_advisory_lock(text, Some(text))),
        ),
        ("sha1_le", Ok(schemes::sha1_le(text))),
        ("pals", Ok(schemes::pals(Some(text), text))),
        (
            "sha256_be_joined",
            Ok(schemes::sha256_be_joined([text, text])),
        ),
        ("npm_advisory_lock", Ok(schemes::npm_advisory_lock(text))),
        ("sqlalchemy_dlock", Ok(schemes::sqlalchemy_dlock(text))),
        ("sqlx", Ok(schemes::sqlx(text))),
        ("distributed_lock", Ok(schemes::distributed_lock(text))),
        ("rails_migrations", Ok(schemes::rails_migrations(text))),
        ("sqlx_migrations", Ok(schemes::sqlx_migrations(text))),
        (
            "golang_migrate",
            Ok(schemes::golang_migrate(text, &[text, text])),
        ),
        (
            "django_pglock",
            schemes::django_pglock(text).map_err(|e| e.kind()),
        ),
        (
            "distributed_lock_unhashed",
            schemes::distributed_lock_unhashed(text).map_err(|e| e.kind()),
        ),
        ("md5_be", schemes::md5_be(text).map_err(|e| e.kind())),
        ("hashtext", schemes::hashtext(text).map_err(|e| e.kind())),
        (
            "hashtext_pair",
            schemes::hashtext_pair(text, text).map_err(|e| e.kind()),
        ),
        (
            "hashtextextended",
            schemes::hashtextextended(text, -1).map_err(|e| e.kind()),
        ),
    ]
}

fn rejected_by(text: &str) -> Vec<&'static str> {
    all(text)
        .into_iter()
        .filter(|(_, result)| *result == Err(LockErrorKind::InvalidKey))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn names_rejected_by_the_other_system_are_errors() {
    assert_eq!(rejected_by(""), ["django_pglock"]);
    let in_sql = ["md5_be", "hashtext", "hashtext_pair", "hashtextextended"];
    assert_eq!(rejected_by("\0"), in_sql);
    assert_eq!(rejected_by("PR-1234"), [""; 0]);
    assert_eq!(rejected_by("PR-1234567"), ["distributed_lock_unhashed"]);
    let half = schemes::hashtext_pair("a", "\0").map_err(|error| error.kind());
    assert_eq!(half, Err(LockErrorKind::InvalidKey));
}

#[test]
fn error_text_names_the_reason() {
    let error = schemes::django_pglock("").expect_err("no key");
    assert_eq!(
        error.to_string(),
        "the name is not valid in this key scheme: django-pglock refuses the empty text"
    );
    assert!(!error.is_lost());
}

/// The expected numbers are results of `prefix.to_i & 0x7fffffff` in Ruby 3.1.
#[test]
fn prefix_is_parsed_as_in_ruby() {
    for (prefix, number) in [
        ("", 0),
        ("myapp", 0),
        ("12abc", 12),
        ("-1", 2_147_483_647),
        ("2147483648", 0),
        ("2147483649", 1),
        ("99999999999999999999999999", 1_677_721_599),
        ("-99999999999999999999999999", 469_762_049),
        ("+7", 7),
        (" \t\n\u{b}\u{c}\r7", 7),
        ("- 7", 0),
        ("+-7", 0),
        ("1_000", 1000),
        ("1__000", 1),
        ("_1", 0),
        ("1_", 1),
        ("0d12", 12),
        ("-0D12", 2_147_483_636),
        ("0d", 0),
        ("0d_1", 0),
        ("0d0d1", 0),
        ("0d1_2", 12),
        ("00d1", 0),
        ("0_8", 8),
        ("0x1F", 0),
        ("\u{a0}7", 0),
        ("٣", 0),
        ("\x007", 0),
        ("7\x008", 7),
    ] {
        let key = schemes::with_advisory_lock("", Some(prefix));
        assert_eq!(key.raw(), RawLockKey::Pair(0, number), "{prefix:?}");
        let number_key = schemes::with_advisory_lock_number(0, Some(prefix));
        assert_eq!(number_key, key, "{prefix:?}");
    }
}

#[test]
fn numbers_keep_their_lowest_31_bits() {
    for (number, kept) in [
        (i64::MIN, 0),
        (-1, 2_147_483_647),
        (-2_147_483_648, 0),
        (2_147_483_647, 2_147_483_647),
        (4_294_967_296 + 7, 7),
        (i64::MAX, 2_147_483_647),
    ] {
        let key = schemes::with_advisory_lock_number(number, None);
        assert_eq!(key.raw(), RawLockKey::Pair(kept, 0), "{number}");
    }
}

/// Names at the boundaries of the four kinds.
#[test]
fn dotnet_name_kinds_are_tried_in_order() {
    let is_pair = |name| matches!(schemes::distributed_lock(name).raw(), RawLockKey::Pair(..));
    assert!(is_pair("123456789") && !is_pair("1234567890"));
    // Nine bytes, but not ASCII.
    assert_eq!(
        schemes::distributed_lock("漢漢漢"),
        schemes::sha1_le("漢漢漢")
    );
    // 16 and 17 bytes that are not hexadecimal digits.
    for name in [
        "0x12345678abcdef",
        "12345678 9abcdef",
        "-123456789abcdef",
        "１２abcdef12",
        "12345678;9abcdef0",
        "12345678,9abcdef",
        "12345678,9abcdef01",
        "\0\0\0\0\0\0\0\0abcdef01",
        "\x001234567abcdef01",
        "1234\x00567abcdef01",
    ] {
        assert_eq!(
            schemes::distributed_lock(name),
            schemes::sha1_le(name),
            "{name:?}"
        );
    }
    let zeros = schemes::distributed_lock("1\0\0\0\0\0\0\0,f\0\0\0\0\0\0\0");
    assert_eq!(zeros.raw(), RawLockKey::Pair(1, 15));
}

#[test]
fn joined_names_are_ambiguous_as_in_the_other_system() {
    let joined = |ids: &[&str]| schemes::sha256_be_joined(ids);
    assert_eq!(joined(&["a-b", "c"]), joined(&["a", "b-c"]));
    assert_eq!(joined(&[]), joined(&[""]));
    assert_ne!(schemes::pals(Some(""), "a"), schemes::pals(None, "a"));
    assert_ne!(
        schemes::hashtext_pair("a", "b").ok(),
        schemes::hashtext_pair("b", "a").ok()
    );
}

/// The error converts to Diesel's error, so a body can return it.
#[cfg(feature = "diesel-sqlite")]
#[test]
fn a_body_can_return_the_error() {
    let error = diesel::result::Error::from(schemes::django_pglock("").expect_err("no key"));
    let diesel::result::Error::QueryBuilderError(inner) = error else {
        panic!("{error:?}");
    };
    let inner = inner
        .downcast::<advisory_locking::LockError>()
        .expect("a LockError");
    assert_eq!(inner.kind(), LockErrorKind::InvalidKey);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// For any text, no function panics, and only the expected functions return an error.
    #[test]
    fn only_expected_functions_reject_a_text(text in "[\\PC\0]{0,20}") {
        let hashed = schemes::distributed_lock(&text) == schemes::sha1_le(&text);
        let expected = [
            ("django_pglock", text.is_empty()),
            ("distributed_lock_unhashed", hashed),
            ("md5_be", text.contains('\0')),
            ("hashtext", text.contains('\0')),
            ("hashtext_pair", text.contains('\0')),
            ("hashtextextended", text.contains('\0')),
        ];
        let expected = expected.into_iter().filter(|(_, rejected)| *rejected);
        prop_assert_eq!(rejected_by(&text), expected.map(|(name, _)| name).collect::<Vec<_>>());
    }

    /// Schemes with the same hash function derive the same low 32 bits.
    #[test]
    fn equivalent_schemes_agree(text in "[^\0]{1,40}") {
        let low = |key: &LockKey| match key.raw() {
            RawLockKey::Single(number) => number & 0xffff_ffff,
            RawLockKey::Pair(low, _) => i64::from(low) & 0xffff_ffff,
        };
        let hashed = |key: Result<LockKey, _>| key.map(|key| low(&key)).map_err(|_: advisory_locking::LockError| ());
        prop_assert_eq!(low(&schemes::crc32(&text)), low(&schemes::django_pglocks(&text)));
        prop_assert_eq!(hashed(schemes::hashtext(&text)), hashed(schemes::hashtextextended(&text, 0)));
        prop_assert_eq!(hashed(schemes::hashtext(&text)), hashed(schemes::hashtext_pair(&text, "")));
        prop_assert_eq!(hashed(schemes::django_pglock(&text)), Ok(low(&schemes::npm_advisory_lock(&text))));
        prop_assert_eq!(schemes::pals(None, &text), schemes::sha1_le(&text));
    }
}
