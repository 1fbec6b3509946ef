use super::part::MAX_TEXT_BYTES;
use super::*;

/// Pinned for ever: a change here means that two releases of a service no longer exclude each
/// other.
#[test]
fn native_derivation_is_golden() {
    let golden: [(&[&str], i64); 6] = [
        (&["driver_update_1"], -7_798_007_558_259_134_978),
        (&["a"], -2_637_370_111_690_287_957),
        (&[""], -4_819_291_480_917_283_080),
        (&["Zürich-東京-🔒"], -2_604_215_376_372_349_466),
        (&["sync", "4"], 5_478_352_693_262_750_134),
        (&["SIGNUP-EMAIL", "a@b.c"], 8_129_151_173_127_605_026),
    ];
    for (parts, number) in golden {
        assert_eq!(
            LockKey::from_parts(parts).raw(),
            RawLockKey::Single(number),
            "{parts:?}"
        );
    }
}

#[test]
fn every_way_to_say_a_key_is_the_same_key() {
    let key = LockKey::from(("sync", 4));
    assert_eq!(key, LockKey::from(("sync", "4")));
    assert_eq!(key, LockKey::from((String::from("sync"), 4_u64)));
    assert_eq!(key, LockKey::from_parts(["sync", "4"]));
    assert_eq!(key, KeyNamespace::new("sync").key(4));
    assert_eq!(key, LockKey::from(&key));
    assert_eq!(LockKey::from("a"), LockKey::from_bytes(b"a"));
    assert_eq!(LockKey::from("a"), LockKey::from(String::from("a")));
    assert_eq!(LockKey::from(("a", "b", "c", 1, 2, 3)), {
        KeyNamespace::new("a")
            .within("b")
            .within("c")
            .within(1)
            .within(2)
            .key(3)
    });
}

#[test]
fn parts_do_not_run_together() {
    let different = [
        LockKey::from_parts::<&str>([]),
        LockKey::from(""),
        LockKey::from(("", "")),
        LockKey::from(("ab", "c")),
        LockKey::from(("a", "bc")),
        LockKey::from("abc"),
        LockKey::from("a/bc"),
        LockKey::from("é"),
        LockKey::from("e\u{301}"),
        LockKey::from("abc "),
        LockKey::from("ab\0c"),
    ];
    for (index, one) in different.iter().enumerate() {
        for other in &different[index + 1..] {
            assert_ne!(one, other);
        }
    }
}

#[test]
fn bytes_are_one_part_in_each_type() {
    let uuid = *b"\x01a\x02b";
    let key = LockKey::from(("order", &uuid[..]));
    assert_eq!(LockKey::from(("order", uuid)), key);
    assert_eq!(LockKey::from(("order", &uuid)), key);
    assert_eq!(LockKey::from(("order", uuid.to_vec())), key);
}

#[test]
fn a_pair_is_not_a_number_with_the_same_bits() {
    assert_eq!(LockKey::from((1, 2)).raw(), RawLockKey::Pair(1, 2));
    assert_ne!(LockKey::from((0, 5)), LockKey::from(5));
}

#[test]
fn extreme_numbers_show_as_in_pg_locks() {
    let columns = |key: RawLockKey| {
        let columns = key.pg_locks();
        (columns.classid, columns.objid, columns.objsubid)
    };
    let shown = [i64::MIN, -1, 0, i64::MAX].map(|n| columns(RawLockKey::Single(n)));
    let all = u32::MAX;
    assert_eq!(
        shown,
        [
            (1 << 31, 0, 1),
            (all, all, 1),
            (0, 0, 1),
            (all >> 1, all, 1)
        ]
    );
    assert_eq!(columns(RawLockKey::Pair(i32::MIN, -1)), (1 << 31, all, 2));
}

#[test]
fn display_names_the_text_and_the_number() {
    let key = LockKey::from(("sync", 4));
    assert_eq!(key.to_string(), r#""sync/4" = 5478352693262750134"#);
    assert_eq!(LockKey::from((1, -1)).to_string(), "(1, -1)");
    assert_eq!(key.raw().to_string(), "5478352693262750134");
    assert_eq!(format!("{:?}", LockKey::from(7)), "LockKey(7)");
    // An e-mail address, say, must not reach logs.
    assert_eq!(key.redacted(), key);
    assert_eq!(
        format!("{:?}", key.redacted()),
        "LockKey(5478352693262750134)"
    );
}

#[test]
fn printed_form_is_parsed() {
    let long = "🔒".repeat(500);
    let longest = format!("{}\u{2029}", "x".repeat(119));
    for text in [
        &longest, "", "a", "\"", "\\", "\\\"", "\" = 5", "a\0b\n", "Zürich", &long,
    ] {
        for key in [
            LockKey::from(text),
            LockKey::from((text, text, -1)),
            LockKey::from_bytes(text.as_bytes()).redacted(),
        ] {
            let parsed: LockKey = key.to_string().parse().unwrap();
            assert_eq!((&parsed, parsed.text()), (&key, key.text()), "{key}");
        }
    }
    for raw in [
        RawLockKey::Single(i64::MIN),
        RawLockKey::Single(i64::MAX),
        RawLockKey::Pair(i32::MIN, i32::MAX),
    ] {
        let key = LockKey::from(raw);
        assert_eq!(key.to_string().parse(), Ok(key));
    }
}

#[test]
fn other_texts_are_no_printed_form() {
    let malformed = [
        "",
        "nightly-report",
        "\"report\"",
        "\"report\" = ",
        "\"report\"=5",
        "\"re\"port\" = 5",
        "\"report\\\" = 5",
        "\"line\nbreak\" = 5",
        "5 ",
        "5.0",
        "(1,2)",
        "(1, 2",
        "(1, 2, 3)",
        "9223372036854775808",
        "(2147483648, 0)",
        "+5",
        "05",
        "-0",
        "(+1, 2)",
        "\"report\" = +5",
        "\"line\u{2028}separator\" = 5",
    ];
    // The printed text is shortened.
    let long = format!("\"{}\" = 5", "x".repeat(131));
    for text in malformed.into_iter().chain([long.as_str()]) {
        let error = text.parse::<LockKey>().unwrap_err();
        assert!(error.to_string().contains("LockKey::from"), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_printed_form_is_parsed(text in ".*", number: i64, pair: (i32, i32)) {
        let number = LockKey::from(number);
        let pair = LockKey::from(pair);
        for key in [LockKey::from((&text, &text)), LockKey::from(text), number, pair] {
            let parsed: LockKey = key.to_string().parse().unwrap();
            proptest::prop_assert_eq!(parsed.text(), key.text());
            proptest::prop_assert_eq!(parsed, key);
        }
    }
}

#[test]
fn any_text_makes_one_short_line() {
    let long = "x".repeat(10 << 20);
    for text in [
        "\0\n\u{1b}[31m\"\\",
        long.as_str(),
        "🔒".repeat(500).as_str(),
        "\n".repeat(500).as_str(),
    ] {
        let key = LockKey::from((text, text, text));
        let shown = key.text().unwrap();
        assert!(shown.len() <= MAX_TEXT_BYTES, "{} bytes", shown.len());
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
    assert_eq!(LockKey::from("a\0b\n").text(), Some(r"a\u{0}b\n"));
    assert_eq!(LockKey::from("a\u{2028}b").text(), Some(r"a\u{2028}b"));
    // Without the escapes, a terminal would show the number and the rest of the line reversed.
    for (text, shown) in [
        ("a\u{202e}b", r"a\u{202e}b"),
        ("\u{2067}b\u{2069}", r"\u{2067}b\u{2069}"),
        ("\u{61c}\u{200e}\u{200f}", r"\u{61c}\u{200e}\u{200f}"),
        // A script that is written from right to left.
        ("שלום", "שלום"),
    ] {
        assert_eq!(LockKey::from(text).text(), Some(shown));
    }
    assert_eq!(LockKey::from_bytes(b"\xff").text(), Some("\u{fffd}"));
    assert_eq!(LockKey::from(r#"a"b\c"#).text(), Some(r#"a\"b\\c"#));
}

#[test]
fn a_text_that_was_cut_shows_that_it_was() {
    let just = "x".repeat(120);
    assert_eq!(LockKey::from(&just).text(), Some(just.as_str()));
    let cut = format!("{just}…");
    for longer in ["x", "\n", "🔒"].map(|more| format!("{just}{more}")) {
        assert_eq!(LockKey::from(&longer).text(), Some(cut.as_str()));
    }
    let two = LockKey::from_parts([just.as_str(), "y"]);
    assert_eq!(two.text(), Some(format!("{just}/…").as_str()));
    // Between two characters.
    let locks = "🔒".repeat(30);
    for cut in ["x", "é", "🔒"].map(|first| format!("{first}{locks}")) {
        let key = LockKey::from(&cut);
        let shown = key.text().unwrap().strip_suffix('…').unwrap();
        assert!(cut.starts_with(shown) && shown.len() > 116, "{shown}");
    }
}

#[test]
fn parts_after_an_ellipsis_are_shown() {
    assert_eq!(LockKey::from(("loading…", 4)).text(), Some("loading…/4"));
}

#[test]
fn text_of_many_empty_parts_is_short() {
    let key = LockKey::from_parts(vec![""; 1_000_000]);
    assert!(key.text().unwrap().len() <= MAX_TEXT_BYTES);
}

#[test]
fn a_million_names_do_not_collide() {
    let mut seen = std::collections::HashSet::with_capacity(1_000_000);
    assert!((0..1_000_000).all(|number| seen.insert(LockKey::from(("order", number)))));
}

/// Locks of several keys are taken in one order, so that two programs do not wait for each other.
#[test]
fn keys_have_an_order() {
    let [low, high] = [1, 2].map(LockKey::from);
    assert!(low < high);
    assert_eq!(low.partial_cmp(&high), Some(Ordering::Less));
}
