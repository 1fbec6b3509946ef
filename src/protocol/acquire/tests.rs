//! Actions and outcome of a scripted acquire. The conformance suite tests the same on a server.

use super::*;
use crate::session::{ServerSigns, SessionError, SqlState};

const LIMIT: Duration = Duration::from_millis(10);

/// Process ids: the session of the connection, and another one to which a pooler may route.
const SESSION: i32 = 1;
const ANOTHER: i32 = 2;

/// Events, each with the milliseconds since the start.
type Events = Vec<(u64, Event)>;

fn row(answer: Option<bool>, pid: i32) -> Event {
    Event::Row(Ok(LockReply {
        answer,
        pid,
        transaction_began: 0,
        server_signs: ServerSigns::NONE,
    }))
}

fn coded(code: &str) -> SessionError {
    SessionError::new("as the script says").with_code(SqlState::new(code))
}

fn hidden() -> SessionError {
    SessionError::new("a code is hidden")
}

fn gone() -> SessionError {
    SessionError::new("closed").with_disconnected(true)
}

/// Returns the names of the actions and the outcome. The script is used up.
fn play(options: LockOptions, script: Events) -> (Vec<&'static str>, Result<Grant, LockError>) {
    play_on(options, None, script)
}

fn play_on(
    options: LockOptions,
    max_server_wait: Option<Duration>,
    script: Events,
) -> (Vec<&'static str>, Result<Grant, LockError>) {
    let snapshot = SessionSnapshot {
        max_server_wait,
        ..SessionSnapshot::idle()
    };
    let mut acquire = Acquire::new(LockKey::from("key"), &options, LockScope::Session, snapshot);
    let (began, mut sent) = (Instant::now(), Vec::new());
    let mut script = [(0, Event::Ready)].into_iter().chain(script);
    while let Some((after, event)) = script.next() {
        sent.push(
            match acquire.handle(event, began + Duration::from_millis(after)) {
                Action::Query(statement) => match statement.kind() {
                    Some(StatementKind::TryAcquire { .. }) => "try",
                    Some(StatementKind::ReleaseIfHeld { pid: Some(SESSION) }) => "release if held",
                    Some(StatementKind::ReleaseIfHeld { pid: Some(ANOTHER) }) => "release there",
                    Some(StatementKind::IsHeld) => "check",
                    other => unreachable!("{other:?}"),
                },
                Action::Script(script) => match script {
                    Script::Wait { .. } => "wait",
                    Script::RevealSqlState { .. } => "reveal",
                    other => unreachable!("{other:?}"),
                },
                Action::Sleep(_) => "sleep",
                Action::Terminate => "terminate",
                Action::Done(outcome) => {
                    assert_eq!(script.count(), 0, "it ended after {sent:?}");
                    return (sent, outcome);
                }
                other => unreachable!("{other:?}"),
            },
        );
    }
    unreachable!("it has not ended after {sent:?}")
}

#[track_caller]
fn assert_fails(
    played: (Vec<&'static str>, Result<Grant, LockError>),
    sent: &[&str],
    kind: LockErrorKind,
) -> LockError {
    assert_eq!(played.0, sent);
    let error = played.1.unwrap_err();
    assert_eq!(error.kind(), kind);
    error
}

fn polling() -> LockOptions {
    LockOptions::wait_up_to(LIMIT)
}

fn blocking() -> LockOptions {
    LockOptions::wait_up_to(LIMIT).strategy(WaitStrategy::Block)
}

/// A session-level lock may be released in the transaction of its grant if the client knows of it.
#[test]
fn grant_has_the_transaction_that_its_release_compares() {
    for (scope, transaction, began) in [
        (LockScope::Session, TransactionState::none(), Some(0)),
        (LockScope::Session, TransactionState::open(1), None),
        (LockScope::Transaction, TransactionState::open(1), Some(0)),
    ] {
        let mut options = LockOptions::no_wait();
        if scope == LockScope::Session {
            options = options.allow_in_transaction();
        }
        let snapshot = SessionSnapshot {
            transaction,
            ..SessionSnapshot::idle()
        };
        let mut acquire = Acquire::new(LockKey::from("key"), &options, scope, snapshot);
        let now = Instant::now();
        assert!(matches!(
            acquire.handle(Event::Ready, now),
            Action::Query(_)
        ));
        match acquire.handle(row(Some(true), SESSION), now) {
            Action::Done(Ok(grant)) => assert_eq!(grant.transaction_began, began, "{scope:?}"),
            other => unreachable!("{other:?}"),
        }
    }
}

/// Only the other session can release what it granted.
#[test]
fn replies_of_two_sessions_are_an_error() {
    let answered = |answer| {
        vec![
            (0, row(Some(false), SESSION)),
            (0, Event::Ready),
            (0, row(Some(answer), ANOTHER)),
        ]
    };
    let refused = play(polling(), answered(false));
    let sent = ["try", "sleep", "try"];
    assert_fails(refused, &sent, LockErrorKind::SessionChanged);
    for released in [Some(true), Some(false), None] {
        let mut script = answered(true);
        script.push((0, row(released, ANOTHER)));
        let granted = play(polling(), script);
        let sent = ["try", "sleep", "try", "release there"];
        assert_fails(granted, &sent, LockErrorKind::SessionChanged);
    }
}

/// A session that still exists is asked for a granted lock.
#[test]
fn failed_try_is_checked_for_a_leak() {
    for (code, kind) in [
        ("53200", LockErrorKind::TooManyLocks),
        ("57014", LockErrorKind::Canceled),
        // It waited for another object than the lock.
        ("55P03", LockErrorKind::Database),
        ("40P01", LockErrorKind::Database),
    ] {
        for (held, sent) in [
            (false, ["try", "check"].as_slice()),
            (true, ["try", "check", "terminate"].as_slice()),
        ] {
            let mut script = vec![
                (0, Event::Row(Err(coded(code)))),
                (0, row(Some(held), SESSION)),
            ];
            script.extend(held.then_some((0, Event::Ready)));
            let error = assert_fails(play(polling(), script), sent, kind);
            assert!(std::error::Error::source(&error).is_some());
        }
    }
}

/// The server did not run the statement. The session may hold other locks of the caller.
#[test]
fn attempt_in_an_aborted_transaction_ends_no_session() {
    let snapshot = SessionSnapshot {
        transaction: TransactionState::open(1),
        ..SessionSnapshot::idle()
    };
    let options = LockOptions::no_wait().allow_in_transaction();
    let (scope, now) = (LockScope::Session, Instant::now());
    let mut acquire = Acquire::new(LockKey::from("key"), &options, scope, snapshot);
    let action = acquire.handle(Event::Ready, now);
    assert!(matches!(action, Action::Query(_)), "{action:?}");
    match acquire.handle(Event::Row(Err(coded("25P02"))), now) {
        Action::Done(Err(error)) => {
            assert_eq!(error.kind(), LockErrorKind::TransactionAborted);
        }
        other => unreachable!("{other:?}"),
    }
    // No code rolls back a transaction that the client does not know of.
    let script = vec![
        (0, Event::Row(Err(coded("25P02")))),
        (0, Event::Row(Err(coded("25P02")))),
        (0, Event::Ready),
    ];
    let sent = ["try", "check", "terminate"];
    assert_fails(
        play(polling(), script),
        &sent,
        LockErrorKind::TransactionAborted,
    );
}

#[test]
fn ended_session_gets_no_statement() {
    let script = vec![(0, Event::Row(Err(gone()))), (0, Event::Ready)];
    let sent = ["try", "terminate"];
    assert_fails(play(polling(), script), &sent, LockErrorKind::Database);
}

/// A second statement reveals a hidden SQLSTATE.
#[test]
fn hidden_sqlstate_is_revealed() {
    let failed = || (0, Event::Row(Err(hidden())));
    let unheld = || (0, row(Some(false), SESSION));
    for (again, kind) in [
        (Ok(()), LockErrorKind::Database),
        (Err(coded("53200")), LockErrorKind::TooManyLocks),
        (Err(coded("55P03")), LockErrorKind::Database),
        (Err(hidden()), LockErrorKind::Database),
    ] {
        let script = vec![failed(), (0, Event::Ran(again)), unheld()];
        let sent = ["try", "reveal", "check"];
        assert_fails(play(polling(), script), &sent, kind);
    }
    let script = vec![failed(), (0, Event::Ran(Err(gone()))), (0, Event::Ready)];
    let sent = ["try", "reveal", "terminate"];
    assert_fails(play(polling(), script), &sent, LockErrorKind::Database);
}

/// Another session knows nothing of the session that was tried.
#[test]
fn leak_check_by_another_session_is_an_error() {
    let script = vec![
        (0, row(Some(false), SESSION)),
        (0, Event::Ready),
        (0, Event::Row(Err(coded("57014")))),
        (0, row(Some(false), ANOTHER)),
    ];
    let sent = ["try", "sleep", "try", "check"];
    let kind = LockErrorKind::SessionChanged;
    assert_fails(play(polling(), script), &sent, kind);
}

#[test]
fn null_answer_is_not_a_grant() {
    let script = vec![(0, row(None, SESSION)), (0, row(Some(false), SESSION))];
    let kind = LockErrorKind::Database;
    let error = assert_fails(play(polling(), script), &["try", "check"], kind);
    assert!(error.to_string().contains("NULL"), "{error}");
}

/// Script of a contended try and a wait that ends with an error. The wait may have been granted the
/// lock.
fn waited(ended: &str, at: u64) -> Events {
    vec![
        (0, row(Some(false), SESSION)),
        (at, Event::Ran(Err(coded(ended)))),
    ]
}

#[test]
fn failed_wait_is_cleaned_up() {
    for released in [Some(true), None] {
        let mut script = waited("55P03", 12);
        script.push((12, row(released, SESSION)));
        let sent = ["try", "wait", "release if held"];
        let error = assert_fails(play(blocking(), script), &sent, LockErrorKind::TimedOut);
        let waited = Some(Duration::from_millis(12));
        assert_eq!((error.limit(), error.waited()), (Some(LIMIT), waited));
    }
    let mut script = waited("55P03", 12);
    script.extend([(12, row(Some(false), SESSION)), (12, Event::Ready)]);
    let sent = ["try", "wait", "release if held", "terminate"];
    assert_fails(play(blocking(), script), &sent, LockErrorKind::Database);
}

/// A pooler may route the clean-up to another session, while the first one holds the lock.
#[test]
fn clean_up_by_another_session_is_no_timeout() {
    let mut script = waited("55P03", 12);
    script.push((12, row(None, ANOTHER)));
    let sent = ["try", "wait", "release if held"];
    let kind = LockErrorKind::SessionChanged;
    assert_fails(play(blocking(), script), &sent, kind);
}

/// The server may end a wait before the limit of the call. A deadlock is final at any time.
#[test]
fn wait_that_ended_early_continues() {
    let mut script = waited("55P03", 2);
    script.extend([
        (2, row(None, SESSION)),
        (12, Event::Ran(Err(coded("55P03")))),
        (12, row(None, SESSION)),
    ]);
    let sent = ["try", "wait", "release if held", "wait", "release if held"];
    assert_fails(play(blocking(), script), &sent, LockErrorKind::TimedOut);

    let mut script = waited("40P01", 2);
    script.push((2, row(None, SESSION)));
    let sent = ["try", "wait", "release if held"];
    assert_fails(play(blocking(), script), &sent, LockErrorKind::Deadlock);
}

/// A session with bounded waits continues a wait without a limit. Other sessions do not.
#[test]
fn unlimited_wait_continues_in_bounded_parts() {
    let forever = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    let script = || {
        let mut script = waited("55P03", 2);
        script.push((2, row(None, SESSION)));
        script
    };
    let sent = ["try", "wait", "release if held"];
    assert_fails(play(forever, script()), &sent, LockErrorKind::TimedOut);
    let mut longer = script();
    longer.push((4, Event::Ran(Ok(()))));
    let (sent, outcome) = play_on(forever, Some(Duration::from_millis(2)), longer);
    assert_eq!(sent, ["try", "wait", "release if held", "wait"]);
    assert!(outcome.is_ok());
}

/// A refused server is reported before a wait, whatever the options wait for.
#[test]
fn refused_server_ends_every_acquire() {
    let signed = |server_signs| {
        Event::Row(Ok(LockReply {
            answer: None,
            pid: SESSION,
            transaction_began: 0,
            server_signs,
        }))
    };
    let refused = LockErrorKind::NoMutualExclusion;
    for (signs, kind) in [
        (ServerSigns::COCKROACH_DB, refused),
        (ServerSigns::SILENCED_YUGABYTE_DB, refused),
        (ServerSigns::STANDBY, LockErrorKind::Standby),
    ] {
        for options in [LockOptions::no_wait(), polling(), blocking()] {
            let script = vec![(0, signed(signs))];
            assert_fails(play(options, script), &["try"], kind);
        }
    }
}

/// The SQLSTATE stays unknown, so the error names the likely causes.
#[test]
fn error_that_does_not_repeat_hints_at_a_pooler() {
    let script = vec![
        (0, Event::Row(Err(hidden()))),
        (0, Event::Ran(Ok(()))),
        (0, row(Some(false), SESSION)),
    ];
    let (sent, outcome) = play(LockOptions::no_wait(), script);
    assert_eq!(sent, ["try", "reveal", "check"]);
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("transaction pooler"), "{text}");
}

#[test]
fn error_hints_at_a_transaction_pooler() {
    let (sent, outcome) = play(
        LockOptions::no_wait(),
        vec![
            (0, Event::Row(Err(coded("26000")))),
            (0, row(Some(false), SESSION)),
        ],
    );
    assert_eq!(sent, ["try", "check"]);
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("transaction pooler"), "{text}");
}
