use super::*;
use crate::session::{BatchMode, TokenSource};

const KINDS: [StatementKind; 5] = [
    StatementKind::TryAcquire,
    StatementKind::TryAcquireXact,
    StatementKind::Release {
        pid: 7,
        transaction_began: Some(9),
    },
    StatementKind::ReleaseIfHeld,
    StatementKind::IsHeld,
];
const KEYS: [RawLockKey; 2] = [RawLockKey::Single(i64::MIN), RawLockKey::Pair(-1, 2)];
const MODES: [LockMode; 2] = [LockMode::Exclusive, LockMode::Shared];

/// Every text, so that a rule about all of them is tested on all of them.
fn every_text() -> Vec<String> {
    let mut texts = Vec::new();
    for key in KEYS {
        for mode in MODES {
            texts.extend(KINDS.map(|kind| statement(kind, key, mode).to_owned()));
            texts.push(batch(ScriptKind::RevealSqlState, key, mode));
            texts.push(batch(
                ScriptKind::ReleaseOrTerminate {
                    pid: 7,
                    transaction_began: Some(9),
                    nonce: 8,
                },
                key,
                mode,
            ));
            for step in [
                PoolerCheckStep::SetMarker { mark: 7 },
                PoolerCheckStep::CheckMarker { mark: 7 },
                PoolerCheckStep::AcquireTestLock,
                PoolerCheckStep::ExpectContention,
                PoolerCheckStep::ReleaseTestLock,
            ] {
                texts.push(batch(ScriptKind::PoolerCheck(step), key, mode));
            }
            texts.push(batch(ScriptKind::RollBackWait, key, mode));
            for in_transaction in [false, true] {
                for place in [
                    TransactionContext::Autocommit,
                    TransactionContext::InTransaction,
                ] {
                    texts.push(batch(
                        ScriptKind::Wait {
                            in_transaction,
                            place,
                            limit_ms: 50,
                        },
                        key,
                        mode,
                    ));
                }
            }
        }
    }
    texts.extend(end_unless_released(7, 8));
    texts.extend(rounds().map(str::to_owned));
    texts.extend(TERMINATE_STATEMENTS.map(str::to_owned));
    texts
}

#[test]
fn every_name_is_qualified() {
    for text in every_text() {
        for (at, _) in text
            .match_indices("pg_")
            .filter(|(at, _)| !text[*at..].starts_with("pg_catalog."))
        {
            assert!(text[..at].ends_with("pg_catalog."), "{text}");
        }
        for function in [
            "set_config(",
            "current_setting(",
            "current_database(",
            "concat(",
            "encode(",
            "timestamptz_send(",
        ] {
            for (at, _) in text.match_indices(function) {
                assert!(text[..at].ends_with("pg_catalog."), "{text}");
            }
        }
        assert!(
            !text.contains(" = $") && !text.replace("CONSTRAINT = pg_", "").contains(" = pg_"),
            "an operator found by search_path: {text}"
        );
    }
}

#[test]
fn parameters_match_the_binds() {
    for kind in KINDS {
        for key in KEYS {
            let count = binds(kind, key).count();
            for mode in MODES {
                let text = statement(kind, key, mode);
                let parameters: Vec<_> = text.split('$').skip(1).map(|rest| &rest[..1]).collect();
                assert_eq!(parameters, ["1", "2", "3", "4"][..count], "{kind:?} {text}");
            }
        }
    }
}

#[test]
fn texts_differ_by_mode_and_key_space() {
    for kind in KINDS {
        let texts: std::collections::HashSet<_> = KEYS
            .iter()
            .flat_map(|key| MODES.map(|mode| statement(kind, *key, mode)))
            .collect();
        assert_eq!(texts.len(), 4, "{kind:?}");
    }
}

#[test]
fn codes_become_kinds() {
    for (code, kind) in [
        ("25P02", LockErrorKind::TransactionAborted),
        ("40P01", LockErrorKind::Deadlock),
        ("42883", LockErrorKind::Unsupported),
        ("0A000", LockErrorKind::Unsupported),
        ("53200", LockErrorKind::TooManyLocks),
        ("55P03", LockErrorKind::TimedOut),
        ("57014", LockErrorKind::Canceled),
        ("42501", LockErrorKind::Database),
        ("57P01", LockErrorKind::Database),
    ] {
        assert_eq!(classify(SqlState::new(code)), kind, "{code}");
    }
    assert_eq!(classify(None), LockErrorKind::Database);
}

#[test]
fn design_shows_the_statements_that_are_sent() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let design = words(include_str!("../../DESIGN.md"));
    let try_once = StatementKind::TryAcquire;
    let release = StatementKind::Release {
        pid: 7,
        transaction_began: None,
    };
    let wait = ScriptKind::Wait {
        in_transaction: false,
        place: TransactionContext::Autocommit,
        limit_ms: 1500,
    };
    let sent = [
        statement(try_once, RawLockKey::Single(42), LockMode::Exclusive).to_owned(),
        statement(release, RawLockKey::Single(42), LockMode::Exclusive).to_owned(),
        batch(wait, RawLockKey::Single(42), LockMode::Exclusive),
    ];
    for sql in sent {
        assert!(design.contains(&words(&sql)), "DESIGN.md has not {sql}");
    }
}

/// What a sequence sends when each statement ends like that.
fn condemned_by(mut end: impl FnMut(usize) -> Result<(), SessionError>) -> Vec<&'static str> {
    let (mut sequence, mut last, mut sent) = (TerminateSequence::default(), None, Vec::new());
    while let Some(sql) = sequence.next(last) {
        last = Some(end(sent.len()));
        sent.push(sql);
    }
    sent
}

#[test]
fn a_condemnation_goes_on_until_something_went_through() {
    let gone = || Err(SessionError::new("closed").with_disconnected(true));
    let cancelled = || Err(SessionError::new("cancelled"));
    assert_eq!(condemned_by(|_| gone()), TERMINATE_STATEMENTS[..1]);
    // Ended by the first, which the client learns by the second.
    assert_eq!(
        condemned_by(|sent| if sent == 0 { Ok(()) } else { gone() }),
        TERMINATE_STATEMENTS[..2]
    );
    // All locks were freed, which is all that could be done.
    let may_not_end = |sent| if sent == 2 { Ok(()) } else { cancelled() };
    assert_eq!(condemned_by(may_not_end), TERMINATE_STATEMENTS);
    let hit_seven_times = |sent| if sent < 7 { cancelled() } else { gone() };
    assert_eq!(condemned_by(hit_seven_times).len(), 8);
    // For ever is too long.
    assert_eq!(condemned_by(|_| cancelled()).len(), 48);
}

/// The texts of rounds, with a sequence and without.
fn rounds() -> [&'static str; 3] {
    let sequence = TokenSource::Sequence("fencing".into());
    [
        round(BatchMode::Execute, &TokenSource::TransactionId),
        round(BatchMode::Execute, &sequence),
        round(BatchMode::Compensate, &sequence),
    ]
}

/// Diesel numbers them by itself.
#[test]
fn the_parameters_of_rounds_stand_once_each_and_in_order() {
    let parameters = |text: &str| -> String {
        let numbers = text.split('$').skip(1).map(|rest| &rest[..1]);
        numbers.collect()
    };
    assert_eq!(rounds().map(parameters), ["123", "1234", "123"]);
}

/// What an expression calls is a word and a parenthesis, an operator or a type.
#[test]
fn nothing_in_a_round_is_found_by_search_path() {
    // Not calls, but SQL itself.
    const WORDS: [&str; 6] = ["ROWS FROM", "FROM", "SELECT", "AS step", "JOIN", "OPERATOR"];
    for text in rounds() {
        let unquoted: String = text.split('\'').step_by(2).collect();
        for (at, _) in unquoted.match_indices('(') {
            let before = unquoted[..at].trim_end();
            let is_sql = WORDS.iter().any(|word| before.ends_with(word));
            let groups = before.ends_with([',', '(', ')'])
                || before.ends_with("AND")
                || before.ends_with("WHEN");
            let start = before.rfind(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let called = start.map(|start| &before[..=start]);
            let qualified = called.is_some_and(|rest| rest.ends_with("pg_catalog."));
            assert!(is_sql || groups || qualified, "{before}(");
        }
        for (at, _) in unquoted.match_indices("::") {
            assert!(
                unquoted[at..].starts_with("::pg_catalog."),
                "{}",
                &unquoted[at..]
            );
        }
        let mut rest = unquoted.as_str();
        while let Some((plain, operator)) = rest.split_once("OPERATOR(pg_catalog.") {
            let symbols = ['=', '<', '>', '&', '|', '+', '-', '*', '/', '%', '~', '#'];
            assert!(!plain.contains(symbols), "{plain}");
            (_, rest) = operator.split_once(')').unwrap();
        }
        assert!(!rest.contains(['=', '<', '>', '&']), "{rest}");
        // So does `CASE value WHEN`.
        assert_eq!(
            unquoted.matches("CASE ").count(),
            unquoted.matches("CASE WHEN ").count(),
            "{text}"
        );
        // `BETWEEN`, `IN` and the like are operators that cannot be named.
        for hidden in [
            " IN (", "BETWEEN", "LIKE", "DISTINCT", "GREATEST", "LEAST", "NULLIF", "ANY",
        ] {
            assert!(!unquoted.contains(hidden), "{hidden}");
        }
    }
}
