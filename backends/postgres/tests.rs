use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::key::{LockKey, RawLockKey};
use crate::options::{LockMode, LockScope};

const PID: i32 = 7;
const KINDS: [StatementKind; 6] = [
    StatementKind::TryAcquire {
        scope: LockScope::Session,
        refuses: ServerSigns::STANDBY,
    },
    StatementKind::TryAcquire {
        scope: LockScope::Transaction,
        refuses: ServerSigns::NONE,
    },
    StatementKind::Release {
        pid: PID,
        transaction_began: Some(9),
    },
    StatementKind::ReleaseIfHeld { pid: Some(PID) },
    StatementKind::IsHeld,
    StatementKind::IsHeldByPreparedTransaction,
];
const SCOPES: [LockScope; 2] = [LockScope::Session, LockScope::Transaction];
const MODES: [LockMode; 2] = [LockMode::Exclusive, LockMode::Shared];
const ACQUIRE: LockOpKind = LockOpKind::Acquire { with_token: false };

fn keys() -> [LockKey; 2] {
    [LockKey::from(i64::MIN), LockKey::from((-1, 2))]
}

fn batch(mode: BatchMode, pid: i32, ops: &[LockOpKind], tokens: TokenSource) -> LockBatch {
    let op = |kind: &LockOpKind| LockOp::new(*kind, LockKey::from((1, -2)).raw(), LockMode::Shared);
    let ops: Vec<_> = ops.iter().map(op).collect();
    LockBatch::new(mode, pid, ops, tokens)
}

/// The statements of batches: with the transaction's id, with a sequence, and a compensation.
fn batches() -> [Statement; 3] {
    let sequence = || TokenSource::Sequence("fencing".into());
    [
        batch(BatchMode::Execute, 0, &[], TokenSource::TransactionId),
        batch(BatchMode::Execute, 0, &[], sequence()),
        batch(BatchMode::Compensate, 0, &[], sequence()),
    ]
    .map(Statement::Batch)
}

/// One statement of each text.
fn every_statement() -> Vec<Statement> {
    let mut statements = Vec::from(batches());
    statements.extend([Some(LockKey::from(1).raw()), None].map(Statement::report));
    statements.extend([Some(1), None].map(|key| Statement::Identity { key }));
    for key in keys() {
        for mode in MODES {
            statements.extend(KINDS.map(|kind| Statement::new(kind, &key, mode)));
            for kind in [ACQUIRE, LockOpKind::Release] {
                let op = LockOp::new(kind, key.raw(), mode);
                let tokens = TokenSource::TransactionId;
                let batch = LockBatch::new(BatchMode::Execute, PID, [op], tokens);
                statements.push(Statement::Batch(batch));
            }
        }
    }
    statements
}

/// The scripts about one lock, and those about a session.
fn scripts(key: RawLockKey, mode: LockMode) -> Vec<Script> {
    let check = |in_savepoint| Script::CheckTransaction {
        key,
        mode,
        transaction_began: 9,
        in_savepoint,
    };
    let mut scripts = vec![
        check(false),
        check(true),
        Script::DisableStatementTimeout,
        Script::EndSnapshot,
        Script::RevealSqlState { key, mode },
        Script::RollBackTransaction,
        Script::RollBackWait,
        Script::ReleaseOrTerminate {
            key,
            mode,
            pid: PID,
            transaction_began: Some(9),
            nonce: 8,
        },
    ];
    for scope in SCOPES {
        for in_transaction in [false, true] {
            scripts.push(Script::Wait {
                key,
                mode,
                scope,
                in_transaction,
                limit_ms: 50,
            });
        }
    }
    scripts
}

/// Every text, so that a test of a rule covers all of them.
fn every_text() -> Vec<String> {
    let statements = every_statement();
    let mut texts: Vec<_> = statements
        .iter()
        .map(|statement| statement.sql().to_owned())
        .collect();
    for key in keys() {
        texts.push(terminate_if_waiting(PID, key.raw()));
        for mode in MODES {
            let scripts = scripts(key.raw(), mode);
            texts.extend(scripts.iter().flat_map(Script::messages));
            texts.extend(scripts.iter().map(Script::plain_sql));
        }
    }
    texts.push(begin());
    for pid in [None, Some(PID)] {
        texts.extend(TerminateStep::ALL.map(|step| step.sql(pid)));
    }
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
            "version(",
            "version(",
            "encode(",
            "timestamptz_send(",
            "txid_current_if_assigned(",
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

/// Diesel caches a prepared statement by the id, so two texts of one id would be one statement.
#[test]
fn statement_ids_are_dense_and_select_the_text() {
    let statements = every_statement();
    let by_id: BTreeMap<_, _> = statements
        .iter()
        .map(|statement| (statement.id(), statement.text()))
        .collect();
    assert!(by_id.keys().copied().eq(0..Statement::COUNT));
    assert_eq!(statements.len(), by_id.len());
    let texts: HashSet<_> = by_id.values().collect();
    assert_eq!(texts.len(), by_id.len());
    for statement in &statements {
        assert_eq!(statement.sql(), statement.text());
    }
}

/// Diesel numbers parameters in the order of their values, so a text must use them in that order.
#[test]
fn parameters_are_in_order_and_match_the_binds() {
    for statement in every_statement() {
        let text = statement.sql();
        let parameters: Vec<_> = text.split('$').skip(1).map(|rest| &rest[..1]).collect();
        let count = statement.binds().count();
        assert_eq!(parameters, ["1", "2", "3", "4", "5"][..count], "{text}");
    }
}

#[test]
fn single_operation_without_token_has_a_short_text() {
    for (kind, function) in [
        (ACQUIRE, ".pg_try_advisory_lock_shared("),
        (LockOpKind::Release, ".pg_advisory_unlock_shared("),
    ] {
        let batch = batch(BatchMode::Execute, PID, &[kind], TokenSource::default());
        let statement = Statement::Batch(batch);
        assert!(statement.sql().contains(function));
        let binds = [Bind::Int4(PID), Bind::Int4(1), Bind::Int4(-2)];
        assert!(statement.binds().eq(binds));
        assert_eq!(statement.pid_column(), None);
    }
}

#[test]
fn other_batches_use_the_batch_text() {
    let [any, _, compensate] = batches();
    let of = |mode, pid, ops: &[LockOpKind]| {
        Statement::Batch(batch(mode, pid, ops, TokenSource::default()))
    };
    for ops in [
        &[][..],
        &[LockOpKind::Acquire { with_token: true }],
        &[LockOpKind::IssueToken],
        &[ACQUIRE, ACQUIRE],
    ] {
        assert_eq!(of(BatchMode::Execute, PID, ops).text(), any.text());
    }
    // The short text needs to know the session.
    assert_eq!(of(BatchMode::Execute, 0, &[ACQUIRE]).text(), any.text());
    let released = of(BatchMode::Compensate, PID, &[ACQUIRE]);
    assert_eq!(released.text(), compensate.text());
}

#[test]
fn design_shows_the_statements_that_are_sent() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let design = words(include_str!("../../DESIGN.md"));
    let try_once = KINDS[0];
    let release = StatementKind::Release {
        pid: 7,
        transaction_began: None,
    };
    let wait = Script::Wait {
        key: RawLockKey::Single(42),
        mode: LockMode::Exclusive,
        scope: LockScope::Session,
        in_transaction: false,
        limit_ms: 1500,
    };
    let key = LockKey::from(42);
    assert_eq!(key.raw(), RawLockKey::Single(42));
    let statement = |kind| {
        Statement::new(kind, &key, LockMode::Exclusive)
            .sql()
            .to_owned()
    };
    let sent = [
        statement(try_once),
        statement(release),
        wait.sql(),
        wait.plain_sql(),
    ];
    for sql in sent {
        assert!(
            design.contains(&words(&sql)),
            "DESIGN.md does not show {sql}"
        );
    }
}

/// An expression names a function (a word before a parenthesis), an operator or a type.
#[test]
fn batch_sql_is_schema_qualified() {
    // Syntax of SQL, not calls.
    const WORDS: [&str; 7] = [
        "ROWS FROM",
        "FROM",
        "SELECT",
        "AS op",
        "JOIN",
        "OPERATOR",
        "COALESCE",
    ];
    for statement in batches() {
        let text = statement.sql();
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
        // `CASE value WHEN` has an implicit operator.
        assert_eq!(
            unquoted.matches("CASE ").count(),
            unquoted.matches("CASE WHEN ").count(),
            "{text}"
        );
        // `BETWEEN`, `IN` and others have implicit operators, which have no qualified form.
        for hidden in [
            " IN (", "BETWEEN", "LIKE", "DISTINCT", "GREATEST", "LEAST", "NULLIF", "ANY",
        ] {
            assert!(!unquoted.contains(hidden), "{hidden}");
        }
    }
}

fn wait(scope: LockScope, in_transaction: bool) -> Script {
    Script::Wait {
        key: RawLockKey::Single(42),
        mode: LockMode::Shared,
        scope,
        in_transaction,
        limit_ms: 50,
    }
}

/// The server starts the timers of these settings with a statement, so the one that waits is too
/// late to change them.
#[test]
fn wait_changes_settings_in_an_earlier_statement() {
    for scope in SCOPES {
        for in_transaction in [false, true] {
            let script = wait(scope, in_transaction);
            for text in [script.sql(), script.plain_sql()] {
                let waits = ["; DO ", "; SELECT pg_catalog.pg_advisory_"].map(|at| text.find(at));
                let at = waits.into_iter().flatten().next().unwrap();
                let before = &text[..at];
                for set in [
                    "set_config('statement_timeout', '0', true)",
                    "set_config('lock_timeout', '50', true)",
                    "set_config('client_connection_check_interval', '500', true)",
                ] {
                    assert!(before.contains(set), "{set}: {text}");
                }
            }
        }
    }
}

/// It bounds the transaction of the caller, so it stays there.
#[test]
fn wait_disables_transaction_timeout_outside_only() {
    let disables = |in_transaction| {
        wait(LockScope::Transaction, in_transaction)
            .sql()
            .contains("transaction_timeout")
    };
    assert!(disables(false));
    assert!(!disables(true));
}

/// A pooler that parses statements does not look into the block.
#[test]
fn wait_shows_the_call_of_a_session_level_lock() {
    let outside_block = |script: Script| {
        let text = script.sql();
        let blocks: Vec<_> = text.split("$advisory_locking$").collect();
        assert_eq!(blocks.len(), 3, "{text}");
        [blocks[0], blocks[2]].concat()
    };
    let call =
        "CASE WHEN false THEN pg_catalog.pg_try_advisory_lock_shared('42'::pg_catalog.int8) END";
    for in_transaction in [false, true] {
        assert!(outside_block(wait(LockScope::Session, in_transaction)).contains(call));
        assert!(
            !outside_block(wait(LockScope::Transaction, in_transaction))
                .contains("advisory_lock_shared")
        );
        let plain = wait(LockScope::Session, in_transaction).plain_sql();
        assert!(!plain.contains("DO ") && !plain.contains("WHEN false"));
        assert!(plain.contains("; SELECT pg_catalog.pg_advisory_lock_shared("));
    }
}

/// `pg_stat_statements` has an entry for each text of a statement that is no query.
#[test]
fn key_is_written_into_queries_only() {
    let others = |key, mode| -> Vec<String> {
        let texts = scripts(key, mode).into_iter().flat_map(|script| {
            let mut texts = script.messages();
            texts.push(script.plain_sql());
            texts
        });
        let statements =
            texts.flat_map(|text| text.split("; ").map(str::to_owned).collect::<Vec<_>>());
        let others = statements.filter(|statement| !statement.starts_with("SELECT "));
        others.collect()
    };
    for mode in MODES {
        for [one, other] in [[1.into(), i64::MIN.into()], [(1, 2).into(), (-3, 4).into()]] {
            let [one, other]: [LockKey; 2] = [one, other];
            let texts = others(one.raw(), mode);
            assert!(texts.iter().any(|text| text.contains("advisory_lock")));
            assert_eq!(texts, others(other.raw(), mode));
        }
    }
}

#[test]
fn transaction_texts_name_the_savepoint() {
    let names = [None, Some("a")];
    assert_eq!(names.map(begin_text), ["BEGIN", "SAVEPOINT a"]);
    assert_eq!(
        names.map(|name| commit_text(name, None)),
        ["SAVEPOINT advisory_locking; COMMIT", "RELEASE SAVEPOINT a"]
    );
    let check = Script::EndSnapshot;
    assert_eq!(
        names.map(|name| commit_text(name, Some(&check))),
        ["SELECT; COMMIT", "SELECT; RELEASE SAVEPOINT a"]
    );
    assert_eq!(
        names.map(rollback_text),
        ["ROLLBACK", "ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a"]
    );
}
