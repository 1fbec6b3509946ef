//! Tests of the checker: a made-up history for each contradiction.

use super::{
    FinalState, History, HoldInterval, NemesisAction, NemesisEvent, contradictions, find_sessions,
};
use crate::history::{Mode, MonotonicNanos, Outcome};

fn hold(mode: Mode, from: MonotonicNanos, until: MonotonicNanos) -> HoldInterval {
    HoldInterval {
        process: 0,
        key: 0,
        mode,
        pid: i32::try_from(from).unwrap(),
        transaction_level: false,
        generation: None,
        seen: true,
        from,
        until,
        writes: None,
        wrote: false,
        filed: None,
        stale: false,
        differed: false,
        ended: Some((Outcome::Ok, until + 1)),
    }
}

fn writer(from: MonotonicNanos, number: u64) -> HoldInterval {
    HoldInterval {
        writes: Some(number),
        wrote: true,
        filed: Some(number),
        ..hold(Mode::Exclusive, from, from + 10)
    }
}

fn event(action: NemesisAction, from: MonotonicNanos, until: MonotonicNanos) -> NemesisEvent {
    NemesisEvent {
        action,
        from,
        until,
        lock_manager: None,
    }
}

fn found(holds: &[HoldInterval], events: &[NemesisEvent], number: u64, filed: u64) -> Vec<String> {
    let history = History {
        holds: holds.to_vec(),
        ..History::default()
    };
    contradictions(
        &history,
        events,
        &[FinalState {
            number,
            filed,
            fenced: 0,
        }],
    )
}

/// Panics if the checker misses a contradiction or reports a false one.
pub(crate) fn test_checker() {
    test_overlaps();
    test_counters();
    test_reports();
    test_lock_managers();
}

/// Histories of lock managers, whose lock and work are on different sessions.
fn test_lock_managers() {
    let by_lock_manager = |pid, outcome| HoldInterval {
        generation: Some(7),
        pid,
        ended: Some((outcome, 21)),
        ..hold(Mode::Exclusive, 10, 20)
    };
    let sessions = |mut holds: Vec<HoldInterval>| {
        find_sessions(&mut holds);
        holds
    };
    let terminated = |pid, lock_manager| NemesisEvent {
        lock_manager,
        ..event(NemesisAction::Terminate { pid }, 2, 3)
    };
    let other = |from| hold(Mode::Exclusive, from, from + 5);
    let proof = HoldInterval {
        key: 1,
        ..by_lock_manager(5, Outcome::Ok)
    };

    // Seen on its session: held, also if its outcome is unknown.
    let seen = sessions(vec![
        proof.clone(),
        by_lock_manager(5, Outcome::Dropped),
        other(12),
    ]);
    assert_one(&found(&seen, &[], 0, 0), "overlap");
    // Seen on the next session, or on none: lost before.
    for pid in [6, 0] {
        let lost = [
            proof.clone(),
            by_lock_manager(pid, Outcome::Lost),
            other(12),
        ];
        let cause = [terminated(5, Some(0))];
        assert_none(&found(&sessions(lost.to_vec()), &cause, 0, 0));
        let other_session = [terminated(8, Some(0))];
        let lost = sessions(lost[..2].to_vec());
        assert_one(&found(&lost, &other_session, 0, 0), "without a cause");
        // Its session is unknown: any session of its process.
        let unknown = sessions(vec![by_lock_manager(pid, Outcome::Lost)]);
        assert_none(&found(&unknown, &other_session, 0, 0));
        let elsewhere = [terminated(8, Some(1))];
        assert_one(&found(&unknown, &elsewhere, 0, 0), "without a cause");
    }
    // A second cancel may hit the compensation. Then the lock manager ends the session.
    let ended_at_a_cancel = |outcome| {
        let holds = vec![proof.clone(), by_lock_manager(5, outcome), other(12)];
        let cancel = NemesisAction::Cancel { pid: 5 };
        found(&sessions(holds), &[event(cancel, 11, 11)], 0, 0)
    };
    assert_none(&ended_at_a_cancel(Outcome::Lost));
    assert_one(&ended_at_a_cancel(Outcome::Ok), "overlap");
    let silent = sessions(vec![by_lock_manager(0, Outcome::Ok)]);
    assert_one(&found(&silent, &[], 0, 0), "not seen on its session");

    // Its writes count in the fenced counter only.
    let written = History {
        holds: sessions(vec![HoldInterval {
            writes: Some(1),
            wrote: true,
            ..by_lock_manager(5, Outcome::Ok)
        }]),
        ..History::default()
    };
    let finals = |number, fenced| FinalState {
        number,
        filed: 0,
        fenced,
    };
    assert_none(&contradictions(&written, &[], &[finals(0, 1)]));
    for last in [finals(0, 0), finals(0, 2)] {
        assert_one(
            &contradictions(&written, &[], &[last]),
            "the database counts",
        );
    }
}

#[track_caller]
fn assert_one(found: &[String], what: &str) {
    assert!(
        found.len() == 1 && found[0].contains(what),
        "{what}: {found:?}"
    );
}

#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{found:?}");
}

fn test_overlaps() {
    use Mode::{Exclusive, Shared};
    let pair = |first, second| [hold(first, 10, 30), hold(second, 20, 40)];
    for (first, second) in [
        (Exclusive, Exclusive),
        (Exclusive, Shared),
        (Shared, Exclusive),
    ] {
        assert_one(&found(&pair(first, second), &[], 0, 0), "overlap");
    }
    assert_none(&found(&pair(Shared, Shared), &[], 0, 0));
    assert_none(&found(
        &[hold(Exclusive, 10, 20), hold(Exclusive, 20, 30)],
        &[],
        0,
        0,
    ));
    // After a shorter interval that began later, and after another shared one.
    let nested = [
        hold(Shared, 10, 90),
        hold(Shared, 20, 30),
        hold(Exclusive, 40, 50),
    ];
    assert_one(&found(&nested, &[], 0, 0), "overlap");
    let behind = [
        hold(Exclusive, 10, 90),
        hold(Exclusive, 100, 110),
        hold(Shared, 105, 120),
    ];
    assert_one(&found(&behind, &[], 0, 0), "overlap");

    // The certain interval ends when the nemesis begins to end the session, not earlier.
    let lost = |ended_at| {
        let mut holds = pair(Exclusive, Exclusive);
        holds[0].ended = Some((Outcome::Lost, 31));
        found(
            &holds,
            &[event(
                NemesisAction::Terminate { pid: 10 },
                ended_at,
                ended_at + 1,
            )],
            0,
            0,
        )
    };
    assert_none(&lost(15));
    assert_one(&lost(25), "overlap");
    // A cancelled statement ends a transaction-level lock only.
    let cancelled = |transaction_level| {
        let mut holds = pair(Exclusive, Exclusive);
        holds[0].ended = Some((Outcome::Failed, 31));
        holds[0].transaction_level = transaction_level;
        let cancel = event(NemesisAction::Cancel { pid: 10 }, 15, 16);
        found(&holds, &[cancel], 0, 0)
    };
    assert_none(&cancelled(true));
    assert_one(&cancelled(false), "overlap");
    let mut holds = pair(Exclusive, Exclusive);
    (holds[0].process, holds[0].ended) = (1, None);
    assert_none(&found(
        &holds,
        &[event(NemesisAction::Kill { process: 1 }, 15, 16)],
        0,
        0,
    ));
    let other = event(NemesisAction::Terminate { pid: 99 }, 15, 16);
    assert_one(
        &found(&pair(Exclusive, Exclusive), &[other], 0, 0),
        "overlap",
    );
    let stopped = event(NemesisAction::Stop, 15, 16);
    assert_one(
        &found(&pair(Exclusive, Exclusive), &[stopped], 0, 0),
        "overlap",
    );
}

fn test_counters() {
    assert_none(&found(&[writer(10, 1), writer(30, 2)], &[], 2, 2));
    let twice = found(
        &[
            writer(10, 1),
            HoldInterval {
                filed: None,
                ..writer(30, 1)
            },
        ],
        &[],
        1,
        1,
    );
    assert_one(&twice, "lost update of the database");
    let twice = found(
        &[
            writer(10, 1),
            HoldInterval {
                filed: Some(1),
                ..writer(30, 2)
            },
        ],
        &[],
        2,
        1,
    );
    assert_one(&twice, "lost update of the file");
    assert_one(&found(&[writer(10, 1)], &[], 0, 1), "the database counts 0");
    assert_one(&found(&[writer(10, 1)], &[], 2, 1), "the database counts 2");
    assert_one(&found(&[writer(10, 1)], &[], 1, 0), "the file counts 0");
    // Without acknowledgement, the database may have the write or not. The file has not.
    let doubtful = HoldInterval {
        wrote: false,
        ended: Some((Outcome::Failed, 25)),
        ..writer(10, 1)
    };
    let cause = [event(NemesisAction::Terminate { pid: 10 }, 15, 16)];
    for number in [0, 1] {
        assert_none(&found(std::slice::from_ref(&doubtful), &cause, number, 0));
    }
    assert_one(&found(&[doubtful], &cause, 2, 0), "the database counts 2");
}

fn test_reports() {
    let ended = |outcome| HoldInterval {
        ended: Some((outcome, 35)),
        ..hold(Mode::Exclusive, 10, 30)
    };
    let here = [event(NemesisAction::Terminate { pid: 10 }, 20, 21)];
    let elsewhere = [event(NemesisAction::Terminate { pid: 11 }, 20, 21)];
    let restart = [event(NemesisAction::Restart { immediate: true }, 20, 25)];
    for outcome in [
        Outcome::Lost,
        Outcome::Failed,
        Outcome::NotAcquired,
        Outcome::TimedOut,
    ] {
        assert_none(&found(&[ended(outcome)], &here, 0, 0));
        assert_none(&found(&[ended(outcome)], &restart, 0, 0));
        assert_one(
            &found(&[ended(outcome)], &elsewhere, 0, 0),
            "without a cause",
        );
    }
    assert_one(
        &found(&[ended(Outcome::Ok)], &here, 0, 0),
        "not reported lost",
    );
    assert_one(
        &found(&[ended(Outcome::Ok)], &restart, 0, 0),
        "not reported lost",
    );
    // Terminated during the release: success and loss are both correct.
    let late = [event(NemesisAction::Terminate { pid: 10 }, 29, 33)];
    assert_none(&found(&[ended(Outcome::Ok)], &late, 0, 0));
    assert_none(&found(&[ended(Outcome::Lost)], &late, 0, 0));

    let unfinished = HoldInterval {
        ended: None,
        ..hold(Mode::Exclusive, 10, 30)
    };
    assert_one(
        &found(std::slice::from_ref(&unfinished), &[], 0, 0),
        "was not killed",
    );
    assert_none(&found(
        &[unfinished],
        &[event(NemesisAction::Kill { process: 0 }, 20, 21)],
        0,
        0,
    ));
    let differed = HoldInterval {
        differed: true,
        ..hold(Mode::Shared, 10, 30)
    };
    assert_one(&found(&[differed], &[], 0, 0), "two readings");
    let stale = HoldInterval {
        stale: true,
        ..hold(Mode::Exclusive, 10, 30)
    };
    // The session of a future is ended between its certain interval and its drop.
    let dropped = HoldInterval {
        ended: Some((Outcome::Dropped, 50)),
        ..stale.clone()
    };
    let late = [event(NemesisAction::Terminate { pid: 10 }, 35, 36)];
    assert_none(&found(std::slice::from_ref(&dropped), &late, 0, 0));
    assert_one(&found(&[dropped], &[], 0, 0), "a later token");
    assert_one(&found(&[stale], &[], 0, 0), "a later token");
}
