use super::*;
use crate::key::LockKey;

const PID: i32 = 7;

fn round_of(kind: RoundKind, pid: i32, steps: &[StepKind]) -> Round {
    let step = |kind| RoundStep::new(kind, LockKey::from((1, -2)).space(), LockMode::Shared);
    let steps = steps.iter().copied().map(step).collect();
    Round::new(kind, pid, steps, TokenSource::default())
}

const TAKE: StepKind = StepKind::Take { fenced: false };

#[test]
fn one_step_without_a_token_is_a_plain_statement() {
    let plain = |pid, step| round_of(RoundKind::Serve, pid, &[step]).plain();
    let statement = |kind| Statement::new(kind, &LockKey::from((1, -2)), LockMode::Shared);
    let tried = statement(StatementKind::Try);
    assert_eq!(plain(0, TAKE), Some(tried));
    assert_eq!(plain(PID, TAKE), Some(tried));
    let released = statement(StatementKind::Release {
        pid: PID,
        transaction_began: None,
    });
    assert_eq!(plain(PID, StepKind::GiveBack), Some(released));
}

#[test]
fn nothing_else_is() {
    // Nobody's release would do nothing.
    let releases_nowhere = round_of(RoundKind::Serve, 0, &[StepKind::GiveBack]);
    assert_eq!(releases_nowhere.plain(), None);
    for steps in [
        &[][..],
        &[StepKind::Take { fenced: true }],
        &[StepKind::Draw],
        &[TAKE, TAKE],
    ] {
        assert_eq!(round_of(RoundKind::Serve, PID, steps).plain(), None);
    }
    assert_eq!(round_of(RoundKind::Undo, PID, &[TAKE]).plain(), None);
}

#[test]
fn a_plain_answer_is_a_rounds() {
    let round = round_of(RoundKind::Serve, PID, &[StepKind::GiveBack]);
    let answers = |answer, pid| {
        let row = round.row_of_plain(Row {
            answer,
            pid,
            transaction_began: 0,
        });
        assert_eq!((row.token, row.pid), (None, pid));
        row.answers
    };
    assert_eq!(answers(Some(true), PID), Some(vec![Some(1)]));
    assert_eq!(answers(Some(false), PID), Some(vec![None]));
    // A release that does nothing gives nothing back.
    assert_eq!(answers(None, PID), Some(vec![None]));
    // Another session does nothing, unless it was asked for a lock.
    assert_eq!(answers(None, PID + 1), None);
    assert_eq!(answers(Some(true), PID + 1), Some(vec![Some(1)]));
}
