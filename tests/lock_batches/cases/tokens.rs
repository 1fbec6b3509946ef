//! Fencing tokens: each is greater than every earlier token of the same lock.

use std::thread;

use advisory_locking::session::{LockOp, TokenSource};
use advisory_locking::{LockKey, LockMode};
use testkit::observer::Observe;
use testkit::server::{connect, eventually, fresh_key, url};
use testkit::temp::{TempDatabase, TempObject};

use crate::client::{
    Connect, Session, acquire, acquire_in, acquire_with_token, issue_token, release,
};

/// Returns the token of a batch's only operation.
fn token_of(session: &mut Session, op: LockOp, tokens: &TokenSource) -> i64 {
    let row = session.execute_with(&[op], tokens);
    let answer = row.answers.unwrap()[0].expect("granted");
    match tokens {
        TokenSource::TransactionId => row.token.expect("a token"),
        _ => {
            assert_eq!(row.token, Some(1), "a sequence that only grows");
            answer
        }
    }
}

fn granted(session: &mut Session, key: &LockKey, tokens: &TokenSource) -> i64 {
    token_of(session, acquire_with_token(key), tokens)
}

pub(crate) fn tokens_grow_over_grants_and_sessions(open: Connect) {
    let sequence = TempObject::create("SEQUENCE", "");
    for tokens in [TokenSource::TransactionId, sequence.source()] {
        let mut sessions = [open(&url()), open(&url())];
        let key = fresh_key();
        let mut last = 0;
        for turn in 0..6 {
            let session = &mut sessions[turn % 2];
            // A grant, one within it, and a token without a grant.
            for op in [
                acquire_with_token(&key),
                acquire_with_token(&key),
                issue_token(&key),
            ] {
                let token = token_of(session, op, &tokens);
                assert!(token > last, "{token} after {last}, {tokens:?}");
                last = token;
            }
            assert_eq!(
                session.execute(&[release(&key), release(&key)]),
                [Some(1), Some(1)]
            );
        }
    }
}

pub(crate) fn sequence_issues_a_token_per_lock(open: Connect) {
    let sequence = TempObject::create("SEQUENCE", "");
    let mut session = open(&url());
    let keys = [fresh_key(), fresh_key(), fresh_key()];
    let ops = [
        acquire_with_token(&keys[0]),
        acquire(&keys[1]),
        acquire_with_token(&keys[2]),
        release(&keys[1]),
    ];
    let row = session.execute_with(&ops, &sequence.source());
    assert_eq!(row.token, Some(1));
    let answers = row.answers.unwrap();
    assert_eq!((answers[1], answers[3]), (Some(1), Some(1)));
    let mut tokens = [answers[0].unwrap(), answers[2].unwrap()];
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2]);

    // A transaction has one id, for all its locks.
    let row = session.execute_with(&ops, &TokenSource::TransactionId);
    assert_eq!(row.answers, Some(vec![Some(1); 4]));
    assert!(row.token.is_some());
}

pub(crate) fn contended_acquire_issues_no_token(open: Connect) {
    let sequence = TempObject::create("SEQUENCE", "");
    let (mut session, mut other) = (open(&url()), open(&url()));
    let [contended, free] = [fresh_key(), fresh_key()];
    assert_eq!(other.execute(&[acquire(&contended)]), [Some(1)]);

    let ops = [acquire_with_token(&contended), acquire(&free)];
    let row = session.execute_with(&ops, &TokenSource::TransactionId);
    assert_eq!((row.answers, row.token), (Some(vec![None, Some(1)]), None));
    let row = session.execute_with(&ops, &sequence.source());
    assert_eq!(
        (row.answers, row.token),
        (Some(vec![None, Some(1)]), Some(1))
    );
    let issued = format!("SELECT is_called::int FROM {}", sequence.name);
    assert_eq!(connect().number(&issued), 0);
}

/// A batch must issue its token after its last grant.
///
/// Another session holds the second lock while a batch acquires the first. The other session issues
/// a token and releases the lock, and then the batch acquires it. The token of the batch must be
/// the greater one.
///
/// In this database, acquiring a single number in shared mode waits at a gate.
pub(crate) fn token_is_issued_after_the_grants(open: Connect) {
    let database = TempDatabase::create();
    let (mut admin, mut keeper) = (database.connect(), database.connect());
    admin.run("SET allow_system_table_mods = on; CREATE SEQUENCE fencing; \
         ALTER FUNCTION pg_catalog.pg_try_advisory_lock_shared(int8) RENAME TO gone; \
         CREATE FUNCTION pg_catalog.pg_try_advisory_lock_shared(gate int8) RETURNS bool LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_advisory_lock(gate); RETURN pg_advisory_unlock(gate); END'");
    let gate = LockKey::from(1);
    let [first, second] = [LockKey::from(2), LockKey::from(3)];
    for tokens in [
        TokenSource::TransactionId,
        TokenSource::Sequence("fencing".into()),
    ] {
        let (mut slow, mut quick) = (open(&database.url()), open(&database.url()));
        let slow_pid = i64::from(slow.pid);
        keeper.run("SELECT pg_advisory_lock(1)");
        granted(&mut quick, &second, &tokens);
        let (row, theirs) = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let gate = acquire_in(LockMode::Shared, &gate);
                slow.execute_with(
                    &[
                        acquire_with_token(&first),
                        gate,
                        acquire_with_token(&second),
                    ],
                    &tokens,
                )
            });
            admin.wait_until_waiting(slow_pid);
            let theirs = token_of(&mut quick, issue_token(&second), &tokens);
            assert_eq!(quick.execute(&[release(&second)]), [Some(1)]);
            keeper.run("SELECT pg_advisory_unlock(1)");
            (waiting.join().unwrap(), theirs)
        });
        let answers = row.answers.unwrap();
        let ours = match tokens {
            TokenSource::TransactionId => row.token.unwrap(),
            _ => answers[2].expect("granted"),
        };
        assert!(ours > theirs, "{ours}, before {theirs}");
        drop((slow, quick));
        eventually("the end of both sessions", || {
            admin.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid IN (2, 3) \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == 0
        });
    }
}
