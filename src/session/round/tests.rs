use super::*;
use crate::key::LockKey;
use crate::session::Bind;

const PID: i32 = 7;

fn round_of(kind: BatchMode, pid: i32, steps: &[LockOpKind]) -> LockBatch {
    let step = |kind| LockOp::new(kind, LockKey::from((1, -2)).raw(), LockMode::Shared);
    let steps: Vec<_> = steps.iter().copied().map(step).collect();
    LockBatch::new(kind, pid, steps, TokenSource::default())
}

const TAKE: LockOpKind = LockOpKind::Acquire { with_token: false };

#[test]
fn one_step_without_a_token_is_a_single_one() {
    for (kind, function) in [
        (TAKE, ".pg_try_advisory_lock_shared("),
        (LockOpKind::Release, ".pg_advisory_unlock_shared("),
    ] {
        let round = round_of(BatchMode::Execute, PID, &[kind]);
        let single = round.single().unwrap();
        assert_eq!((single.pid(), single.step()), (PID, round.ops()[0]));
        assert!(single.sql().contains(function));
        let binds = [Bind::Int4(PID), Bind::Int4(1), Bind::Int4(-2)];
        assert!(single.binds().eq(binds));
        assert_eq!(single.to_round(), round);
    }
}

#[test]
fn nothing_else_is() {
    for steps in [
        &[][..],
        &[LockOpKind::Acquire { with_token: true }],
        &[LockOpKind::IssueToken],
        &[TAKE, TAKE],
    ] {
        assert_eq!(round_of(BatchMode::Execute, PID, steps).single(), None);
    }
    assert_eq!(round_of(BatchMode::Compensate, PID, &[TAKE]).single(), None);
    // Whichever session answers: that cannot be asked of a single step.
    assert_eq!(round_of(BatchMode::Execute, 0, &[TAKE]).single(), None);
}

#[test]
fn a_single_answer_is_a_rounds() {
    let round = round_of(BatchMode::Execute, PID, &[TAKE]);
    let single = round.single().unwrap();
    for (answer, answers) in [
        (Some(true), Some(vec![Some(1)])),
        (Some(false), Some(vec![None])),
        (None, None),
    ] {
        let row = single.row_of(answer);
        assert_eq!((row.token, &row.answers), (None, &answers));
        // Another session than the one that was meant has answered, and its number is not known.
        assert_eq!(row.pid == PID, answer.is_some());
        assert_eq!(SingleOp::answer_of(row), answer);
    }
}
