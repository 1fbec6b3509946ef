//! The model of the server against the server: the same rounds, chosen at random, on both.

use std::collections::HashSet;

use advisory_locking::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, LockSession, TokenSource,
};
use advisory_locking::{LockKey, LockMode};

use crate::client;
use crate::model::{Model, ModelSession};
use crate::support::run;
use crate::throwaway::Database;

const SESSIONS: usize = 3;

fn step(random: &mut fastrand::Rng, keys: &[LockKey]) -> LockOp {
    let kinds = [
        LockOpKind::Acquire { with_token: false },
        LockOpKind::Acquire { with_token: true },
        LockOpKind::Release,
        LockOpKind::IssueToken,
    ];
    let modes = [LockMode::Exclusive, LockMode::Shared];
    let key = keys[random.usize(..keys.len())].raw();
    LockOp::new(kinds[random.usize(..4)], key, modes[random.usize(..2)])
}

/// The answers without the order in which a sequence was asked, and the token without the number of the transaction.
fn shape(round: &LockBatch, row: BatchReply) -> impl PartialEq + std::fmt::Debug {
    let answers = row.answers.map(|answers| {
        let mut sorted = answers.clone();
        sorted.sort_unstable();
        let yes: Vec<_> = answers.iter().map(Option::is_some).collect();
        (yes, sorted)
    });
    let token = match round.tokens() {
        TokenSource::TransactionId => row.token.map(|_| 0),
        _ => row.token,
    };
    (answers, token)
}

#[test]
fn the_model_answers_as_the_server_does() {
    let database = Database::create();
    run(
        &mut database.connect(),
        "CREATE SEQUENCE growing; CREATE SEQUENCE cycling CYCLE",
    );
    let model = Model::default();
    model.run(|server| {
        server.create_sequence("growing", true);
        server.create_sequence("cycling", false);
    });
    let mut real: Vec<_> = (0..SESSIONS)
        .map(|_| client::diesel(&database.url()))
        .collect();
    let mut modelled: Vec<ModelSession> = (0..SESSIONS).map(|_| model.connect()).collect();
    let keys = [1, 2]
        .map(LockKey::from)
        .into_iter()
        .chain([(0, 1), (0, 2)].map(LockKey::from));
    let keys: Vec<_> = keys.collect();

    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut yes, mut singles) = (0, 0);
    for turn in 0..2_000 {
        let mut steps: Vec<_> = (0..random.usize(..6))
            .map(|_| step(&mut random, &keys))
            .collect();
        let kind = if random.u8(..4) == 0 {
            BatchMode::Compensate
        } else {
            BatchMode::Execute
        };
        if kind == BatchMode::Compensate {
            // Each lock once: which of two steps gives a level back is nobody's business.
            let mut named = HashSet::new();
            steps.retain(|step| named.insert((step.key(), step.mode())));
        }
        let (asked, meant) = (random.usize(..SESSIONS), random.usize(..SESSIONS));
        // Mostly the one that is asked.
        let meant = if random.bool() { asked } else { meant };
        let tokens = match random.u8(..8) {
            0 => TokenSource::Sequence("cycling".into()),
            // Whether a sequence is missing need not be looked at where nothing is done.
            1 if asked == meant && !steps.is_empty() => TokenSource::Sequence("missing".into()),
            2 | 3 => TokenSource::Sequence("growing".into()),
            _ => TokenSource::TransactionId,
        };
        let round = |pid| LockBatch::new(kind, pid, steps.clone(), tokens.clone());

        let pid = real[meant].pid;
        if let Some(single) = round(modelled[meant].pid()).single() {
            // The model knows rounds only, so this is what the port does by itself for a client that does not know single steps.
            let theirs = real[asked].single_meaning(pid, steps[0]);
            let ours = LockSession::session_execute_single(&mut modelled[asked], &single);
            singles += 1;
            assert_eq!(
                ours.ok(),
                theirs.ok(),
                "seed {seed}, turn {turn}: {single:?}"
            );
            continue;
        }
        let theirs = real[asked].ask_meaning(pid, kind, &steps, &tokens);
        let round = round(modelled[meant].pid());
        let ours = LockSession::session_execute_batch(&mut modelled[asked], &round);
        yes += ours
            .iter()
            .flat_map(|row| row.answers.iter().flatten())
            .flatten()
            .count();
        assert_eq!(
            ours.map(|row| shape(&round, row)).ok(),
            theirs.map(|row| shape(&round, row)).ok(),
            "seed {seed}, turn {turn}: session {asked} was asked {round:?}"
        );
    }
    assert!(yes > 1_000, "{yes}: it was about nothing");
    assert!(singles > 50, "{singles}: hardly a single step");
}
