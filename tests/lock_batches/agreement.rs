//! The model of the server against a server: the same random batches on both.

use std::collections::HashSet;

use advisory_locking::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, LockSession, Statement, TokenSource,
};
use advisory_locking::{LockKey, LockMode};
use testkit::observer::Observe;
use testkit::temp::TempDatabase;

use crate::client;
use testkit::model::{Model, ModelSession};

const SESSIONS: usize = 3;

fn random_op(random: &mut fastrand::Rng, keys: &[LockKey]) -> LockOp {
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

/// The reply without what may differ: the order in which a sequence issued tokens, and the id of
/// the transaction.
fn comparable(batch: &LockBatch, reply: BatchReply) -> impl PartialEq + std::fmt::Debug {
    let answers = reply.answers.map(|answers| {
        let mut sorted = answers.clone();
        sorted.sort_unstable();
        let yes: Vec<_> = answers.iter().map(Option::is_some).collect();
        (yes, sorted)
    });
    let token = match batch.tokens() {
        TokenSource::TransactionId => reply.token.map(|_| 0),
        _ => reply.token,
    };
    (answers, token)
}

#[test]
fn model_replies_as_the_server_does() {
    let database = TempDatabase::create();
    database
        .connect()
        .run("CREATE SEQUENCE growing; CREATE SEQUENCE cycling CYCLE");
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
        let mut ops: Vec<_> = (0..random.usize(..6))
            .map(|_| random_op(&mut random, &keys))
            .collect();
        let mode = if random.u8(..4) == 0 {
            BatchMode::Compensate
        } else {
            BatchMode::Execute
        };
        if mode == BatchMode::Compensate {
            // Each lock once, because either of two operations may release a level.
            let mut named = HashSet::new();
            ops.retain(|op| named.insert((op.key(), op.mode())));
        }
        let (asked, expected) = (random.usize(..SESSIONS), random.usize(..SESSIONS));
        // Mostly the session that gets the batch.
        let expected = if random.bool() { asked } else { expected };
        // The text of a single operation neither asks a sequence nor returns a token.
        let single = mode == BatchMode::Execute
            && matches!(&*ops, [op] if !matches!(
                op.kind(),
                LockOpKind::Acquire { with_token: true } | LockOpKind::IssueToken
            ));
        singles += usize::from(single);
        let tokens = match random.u8(..8) {
            _ if single => TokenSource::TransactionId,
            0 => TokenSource::Sequence("cycling".into()),
            // A batch that does nothing need not look for the sequence.
            1 if asked == expected && !ops.is_empty() => TokenSource::Sequence("missing".into()),
            2 | 3 => TokenSource::Sequence("growing".into()),
            _ => TokenSource::TransactionId,
        };
        let pid = real[expected].pid;
        let theirs = real[asked].send_to_pid(pid, mode, &ops, &tokens);
        let batch = LockBatch::new(mode, modelled[expected].pid(), &*ops, tokens);
        let statement = Statement::Batch(batch.clone());
        let row = LockSession::session_query(&mut modelled[asked], &statement);
        let ours = row.and_then(|row| BatchReply::from_row(row, batch.pid()));
        yes += ours
            .iter()
            .flat_map(|row| row.answers.iter().flatten())
            .flatten()
            .count();
        assert_eq!(
            ours.map(|reply| comparable(&batch, reply)).ok(),
            theirs.map(|reply| comparable(&batch, reply)).ok(),
            "seed {seed}, turn {turn}: session {asked} got {batch:?}"
        );
    }
    assert!(yes > 1_000, "only {yes} operations succeeded");
    assert!(singles > 50, "only {singles} single operations");
}
