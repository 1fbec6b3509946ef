//! A checker that never complains proves nothing: each contradiction, made up.

use super::{Act, Final, History, Hold, NemesisAction, contradictions, find_sessions};
use crate::history::{Mode, Moment, Outcome};

fn hold(mode: Mode, from: Moment, until: Moment) -> Hold {
    Hold {
        process: 0,
        key: 0,
        mode,
        pid: i32::try_from(from).unwrap(),
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

fn writer(from: Moment, number: u64) -> Hold {
    Hold {
        writes: Some(number),
        wrote: true,
        filed: Some(number),
        ..hold(Mode::Exclusive, from, from + 10)
    }
}

fn act(what: NemesisAction, from: Moment, until: Moment) -> Act {
    Act {
        what,
        from,
        until,
        locker: None,
    }
}

fn found(holds: &[Hold], acts: &[Act], number: u64, filed: u64) -> Vec<String> {
    let history = History {
        holds: holds.to_vec(),
        ..History::default()
    };
    contradictions(
        &history,
        acts,
        &[Final {
            number,
            filed,
            fenced: 0,
        }],
    )
}

/// Panics if the checker misses something, or complains of what is right.
pub(crate) fn checks_itself() {
    overlaps();
    counters();
    reports();
    lockers();
}

/// NemesisAction is different where the lock is on another session than the work.
fn lockers() {
    let of_locker = |pid, outcome| Hold {
        generation: Some(7),
        pid,
        ended: Some((outcome, 21)),
        ..hold(Mode::Exclusive, 10, 20)
    };
    let sessions = |mut holds: Vec<Hold>| {
        find_sessions(&mut holds);
        holds
    };
    let terminated = |pid, locker| Act {
        locker,
        ..act(NemesisAction::Terminate { pid }, 2, 3)
    };
    let other = |from| hold(Mode::Exclusive, from, from + 5);
    let proof = Hold {
        key: 1,
        ..of_locker(5, Outcome::Ok)
    };

    // Seen on its session: held, also if nobody was told how it ended.
    let seen = sessions(vec![
        proof.clone(),
        of_locker(5, Outcome::Dropped),
        other(12),
    ]);
    assert_one(&found(&seen, &[], 0, 0), "overlap");
    // Seen on the next session, or on none: lost before.
    for pid in [6, 0] {
        let lost = [proof.clone(), of_locker(pid, Outcome::Lost), other(12)];
        let cause = [terminated(5, Some(0))];
        assert_none(&found(&sessions(lost.to_vec()), &cause, 0, 0));
        let other_session = [terminated(8, Some(0))];
        let lost = sessions(lost[..2].to_vec());
        assert_one(&found(&lost, &other_session, 0, 0), "without a cause");
        // Nobody knows which session it was: one of its process's.
        let unknown = sessions(vec![of_locker(pid, Outcome::Lost)]);
        assert_none(&found(&unknown, &other_session, 0, 0));
        let elsewhere = [terminated(8, Some(1))];
        assert_one(&found(&unknown, &elsewhere, 0, 0), "without a cause");
    }
    let silent = sessions(vec![of_locker(0, Outcome::Ok)]);
    assert_one(&found(&silent, &[], 0, 0), "not seen on its session");
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

fn overlaps() {
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
    // Behind a shorter one that began later, and behind another shared one.
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

    // NemesisAction the nemesis ended is over before, and not earlier.
    let lost = |ended_at| {
        let mut holds = pair(Exclusive, Exclusive);
        holds[0].ended = Some((Outcome::Lost, 31));
        found(
            &holds,
            &[act(
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
    let mut holds = pair(Exclusive, Exclusive);
    (holds[0].process, holds[0].ended) = (1, None);
    assert_none(&found(
        &holds,
        &[act(NemesisAction::Kill { process: 1 }, 15, 16)],
        0,
        0,
    ));
    let other = act(NemesisAction::Terminate { pid: 99 }, 15, 16);
    assert_one(
        &found(&pair(Exclusive, Exclusive), &[other], 0, 0),
        "overlap",
    );
    let stopped = act(NemesisAction::Stop, 15, 16);
    assert_one(
        &found(&pair(Exclusive, Exclusive), &[stopped], 0, 0),
        "overlap",
    );
}

fn counters() {
    assert_none(&found(&[writer(10, 1), writer(30, 2)], &[], 2, 2));
    let twice = found(
        &[
            writer(10, 1),
            Hold {
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
            Hold {
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
    // Cut off: it may be there or not, and the file is not acknowledged.
    let doubtful = Hold {
        wrote: false,
        ended: Some((Outcome::Failed, 25)),
        ..writer(10, 1)
    };
    let cause = [act(NemesisAction::Terminate { pid: 10 }, 15, 16)];
    for number in [0, 1] {
        assert_none(&found(std::slice::from_ref(&doubtful), &cause, number, 0));
    }
    assert_one(&found(&[doubtful], &cause, 2, 0), "the database counts 2");
}

fn reports() {
    let ended = |outcome| Hold {
        ended: Some((outcome, 35)),
        ..hold(Mode::Exclusive, 10, 30)
    };
    let here = [act(NemesisAction::Terminate { pid: 10 }, 20, 21)];
    let elsewhere = [act(NemesisAction::Terminate { pid: 11 }, 20, 21)];
    let restart = [act(NemesisAction::Restart { immediate: true }, 20, 25)];
    for outcome in [Outcome::Lost, Outcome::Failed, Outcome::NotHad] {
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
    // Ended while it was being given back: either report is right.
    let late = [act(NemesisAction::Terminate { pid: 10 }, 29, 33)];
    assert_none(&found(&[ended(Outcome::Ok)], &late, 0, 0));
    assert_none(&found(&[ended(Outcome::Lost)], &late, 0, 0));

    let unfinished = Hold {
        ended: None,
        ..hold(Mode::Exclusive, 10, 30)
    };
    assert_one(
        &found(std::slice::from_ref(&unfinished), &[], 0, 0),
        "nobody killed",
    );
    assert_none(&found(
        &[unfinished],
        &[act(NemesisAction::Kill { process: 0 }, 20, 21)],
        0,
        0,
    ));
    let differed = Hold {
        differed: true,
        ..hold(Mode::Shared, 10, 30)
    };
    assert_one(&found(&[differed], &[], 0, 0), "two readings");
    let stale = Hold {
        stale: true,
        ..hold(Mode::Exclusive, 10, 30)
    };
    assert_one(&found(&[stale], &[], 0, 0), "a later token");
}
