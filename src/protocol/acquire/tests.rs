//! What is sent, one thing after the other, and what comes of it. The conformance suite shows what that does to a server.

use super::*;
use crate::session::{SessionError, SqlState};

const LIMIT: Duration = Duration::from_millis(10);

/// What is answered by one session, and by another to which a pooler may send a statement.
const SESSION: i32 = 1;
const ANOTHER: i32 = 2;

/// Each event with the milliseconds since the attempt began.
type Script = Vec<(u64, Event)>;

fn row(answer: Option<bool>, pid: i32) -> Event {
    Event::Row(Ok(LockReply {
        answer,
        pid,
        transaction_began: 0,
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

/// A name for each step, and how the attempt ended. The script is used up.
fn play(options: LockOptions, script: Script) -> (Vec<&'static str>, Result<Acquired, LockError>) {
    play_on(options, None, script)
}

fn play_on(
    options: LockOptions,
    max_server_wait: Option<Duration>,
    script: Script,
) -> (Vec<&'static str>, Result<Acquired, LockError>) {
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
                    StatementKind::TryAcquire => "try",
                    StatementKind::ReleaseIfHeld => "give back",
                    StatementKind::IsHeld => "look",
                    other => unreachable!("{other:?}"),
                },
                Action::Script(script) => match script.kind() {
                    ScriptKind::Wait { .. } => "wait",
                    ScriptKind::RevealSqlState => "diagnose",
                    other => unreachable!("{other:?}"),
                },
                Action::Sleep(_) => "sleep",
                Action::Terminate => "condemn",
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
    played: (Vec<&'static str>, Result<Acquired, LockError>),
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

/// What was granted by another session than the one that was tried first can only be given back there.
#[test]
fn tries_answered_by_two_sessions_are_told_of() {
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
    let mut script = answered(true);
    script.push((0, row(Some(true), ANOTHER)));
    let granted = play(polling(), script);
    let sent = ["try", "sleep", "try", "give back"];
    assert_fails(granted, &sent, LockErrorKind::SessionChanged);
}

/// A session that is there still is asked whether it was granted the lock all the same.
#[test]
fn a_try_that_fails_is_looked_after() {
    for (code, kind) in [
        ("53200", LockErrorKind::TooManyLocks),
        ("57014", LockErrorKind::Canceled),
        // It waited for something else than the lock.
        ("55P03", LockErrorKind::Database),
        ("40P01", LockErrorKind::Database),
    ] {
        for (held, sent) in [
            (false, ["try", "look"].as_slice()),
            (true, ["try", "look", "condemn"].as_slice()),
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

#[test]
fn a_session_that_ended_is_asked_nothing() {
    let script = vec![(0, Event::Row(Err(gone()))), (0, Event::Ready)];
    let sent = ["try", "condemn"];
    assert_fails(play(polling(), script), &sent, LockErrorKind::Database);
}

/// A client that hides codes is asked again in a way that shows them.
#[test]
fn a_hidden_code_is_asked_for() {
    let failed = || (0, Event::Row(Err(hidden())));
    let unheld = || (0, row(Some(false), SESSION));
    for (again, kind) in [
        (Ok(()), LockErrorKind::Database),
        (Err(coded("53200")), LockErrorKind::TooManyLocks),
        (Err(coded("55P03")), LockErrorKind::Database),
        (Err(hidden()), LockErrorKind::Database),
    ] {
        let script = vec![failed(), (0, Event::Ran(again)), unheld()];
        let sent = ["try", "diagnose", "look"];
        assert_fails(play(polling(), script), &sent, kind);
    }
    let script = vec![failed(), (0, Event::Ran(Err(gone()))), (0, Event::Ready)];
    let sent = ["try", "diagnose", "condemn"];
    assert_fails(play(polling(), script), &sent, LockErrorKind::Database);
}

/// What another session shows says nothing of the one that was tried.
#[test]
fn a_look_answered_elsewhere_is_told_of() {
    let script = vec![
        (0, row(Some(false), SESSION)),
        (0, Event::Ready),
        (0, Event::Row(Err(coded("57014")))),
        (0, row(Some(false), ANOTHER)),
    ];
    let sent = ["try", "sleep", "try", "look"];
    let kind = LockErrorKind::SessionChanged;
    assert_fails(play(polling(), script), &sent, kind);
}

#[test]
fn no_answer_is_no_grant() {
    let script = vec![(0, row(None, SESSION)), (0, row(Some(false), SESSION))];
    let kind = LockErrorKind::Database;
    let error = assert_fails(play(polling(), script), &["try", "look"], kind);
    assert!(error.to_string().contains("NULL"), "{error}");
}

/// A wait that ended at its limit may have been granted the lock, so one level is given back if it is there.
fn waited(ended: &str, at: u64) -> Script {
    vec![
        (0, row(Some(false), SESSION)),
        (at, Event::Ran(Err(coded(ended)))),
    ]
}

#[test]
fn a_wait_is_cleaned_up() {
    for given_back in [Some(true), None] {
        let mut script = waited("55P03", 12);
        script.push((12, row(given_back, SESSION)));
        let (sent, outcome) = play(blocking(), script);
        assert_eq!(sent, ["try", "wait", "give back"]);
        assert!(matches!(outcome, Ok(Acquired::TimedOut)));
    }
    let mut script = waited("55P03", 12);
    script.extend([(12, row(Some(false), SESSION)), (12, Event::Ready)]);
    let sent = ["try", "wait", "give back", "condemn"];
    assert_fails(play(blocking(), script), &sent, LockErrorKind::Database);
}

/// A pooler may send the clean-up to another session than the wait, which may have been granted the lock as it timed out.
#[test]
fn a_wait_cleaned_up_elsewhere_is_not_called_timed_out() {
    let mut script = waited("55P03", 12);
    script.push((12, row(None, ANOTHER)));
    let sent = ["try", "wait", "give back"];
    let kind = LockErrorKind::SessionChanged;
    assert_fails(play(blocking(), script), &sent, kind);
}

/// The server may end a wait before our limit; a deadlock is no such end, whenever it comes.
#[test]
fn a_wait_that_ended_early_goes_on() {
    let mut script = waited("55P03", 2);
    script.extend([
        (2, row(None, SESSION)),
        (12, Event::Ran(Err(coded("55P03")))),
        (12, row(None, SESSION)),
    ]);
    let (sent, outcome) = play(blocking(), script);
    assert_eq!(sent, ["try", "wait", "give back", "wait", "give back"]);
    assert!(matches!(outcome, Ok(Acquired::TimedOut)));

    let mut script = waited("40P01", 2);
    script.push((2, row(None, SESSION)));
    let sent = ["try", "wait", "give back"];
    assert_fails(play(blocking(), script), &sent, LockErrorKind::Deadlock);
}

/// A wait without a limit goes on too where a session cannot wait that long at a time, and only there.
#[test]
fn a_wait_for_ever_is_one_of_many() {
    let forever = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    let script = || {
        let mut script = waited("55P03", 2);
        script.push((2, row(None, SESSION)));
        script
    };
    let (sent, outcome) = play(forever, script());
    assert_eq!(sent, ["try", "wait", "give back"]);
    assert!(matches!(outcome, Ok(Acquired::TimedOut)));
    let mut longer = script();
    longer.push((4, Event::Ran(Ok(()))));
    let (sent, outcome) = play_on(forever, Some(Duration::from_millis(2)), longer);
    assert_eq!(sent, ["try", "wait", "give back", "wait"]);
    assert!(matches!(outcome, Ok(Acquired::Granted(_))));
}
