//! Tokens that increase, and storage that rejects a writer with an old token.

use std::sync::{Arc, Mutex};

use advisory_locking::LockErrorKind::{Database, InvalidOptions};
use advisory_locking::lock_manager::{LockManagerOptions, TokenSource};
use diesel::RunQueryDsl;
use diesel::sql_types::BigInt;
use testkit::observer::Observe;
use testkit::server::{connect, connect_to};
use testkit::temp::TempObject;

use super::{fresh_key, kind_of, no_wait, poll, without_keep_alive};
use crate::pool_under_test::PoolUnderTest;

/// Across tasks, hand-offs, lock managers and losses of sessions.
pub(crate) async fn tokens_grow(pool_under_test: PoolUnderTest) {
    let sequence = TempObject::create("SEQUENCE", "");
    for source in [TokenSource::TransactionId, sequence.source()] {
        let options = without_keep_alive().fencing_tokens(source.clone());
        let managers = [
            pool_under_test.manager(options.clone()).await,
            pool_under_test
                .manager(options.clone().hand_off_limit(0, super::NO_KEEP_ALIVE))
                .await,
        ];
        let (key, tokens, mut observer) = (
            fresh_key(),
            Arc::new(Mutex::new(Vec::new())),
            connect_to(&pool_under_test.url),
        );
        for round in 0..3 {
            let tasks: Vec<_> = (0..8)
                .map(|task| {
                    let (manager, key) = (managers[task % 2].clone(), key.clone());
                    let tokens = Arc::clone(&tokens);
                    let options = if task % 4 < 2 { poll() } else { super::block() };
                    tokio::spawn(async move {
                        let guard = manager.acquire_fenced(&key, options).await.unwrap();
                        tokens
                            .lock()
                            .unwrap()
                            .push(guard.fencing_token().expect("a token"));
                        guard.release().await.unwrap();
                        let guard = manager.acquire(&key, poll()).await.unwrap();
                        assert_eq!(
                            guard.fencing_token(),
                            None,
                            "a token without a request for one"
                        );
                        guard.release().await.unwrap();
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let guard = managers[round % 2].try_acquire_fenced(&key, poll()).await;
            let guard = guard.unwrap().expect("not contended");
            tokens.lock().unwrap().push(guard.fencing_token().unwrap());
            observer.terminate_holder(&key);
            drop(guard);
        }
        let tokens = tokens.lock().unwrap();
        assert_eq!(tokens.len(), 27);
        assert!(
            tokens.is_sorted_by(|one, next| one < next),
            "{source:?}: {tokens:?}"
        );
    }
}

/// The failed call does not hold the lock, which can be acquired without a token.
pub(crate) async fn unsuitable_sequence_is_rejected(pool_under_test: PoolUnderTest) {
    let mut observer = connect_to(&pool_under_test.url);
    let unfit =
        ["CACHE 10", "CYCLE", "INCREMENT -1"].map(|how| TempObject::create("SEQUENCE", how));
    let missing = TokenSource::Sequence("there_is_no_such_sequence".into());
    let sources = unfit.iter().map(|made| (made.source(), InvalidOptions));
    for (source, kind) in sources.chain([(missing, Database)]) {
        let manager = pool_under_test
            .manager(LockManagerOptions::new().fencing_tokens(source.clone()))
            .await;
        let key = fresh_key();
        for options in [no_wait(), poll()] {
            let refused = manager.acquire_fenced(&key, options).await;
            assert_eq!(kind_of(refused), Some(kind), "{source:?}");
            assert!(observer.is_free(&key));
        }
        let guard = manager.acquire(&key, no_wait()).await.unwrap();
        assert_eq!(guard.fencing_token(), None);
        guard.release().await.unwrap();
    }
}

/// A holder that does not know of its loss cannot write to storage that checks tokens.
pub(crate) async fn stale_writer_is_rejected(pool_under_test: PoolUnderTest) {
    let table = TempObject::create("TABLE", "(token bigint NOT NULL, value text NOT NULL)");
    let mut storage = connect();
    storage.run(&format!("INSERT INTO {} VALUES (0, '')", table.name));
    let mut write = |token: i64, value: &str| {
        let update = format!(
            "UPDATE {} SET token = $1, value = '{value}' WHERE token <= $1",
            table.name
        );
        diesel::sql_query(update)
            .bind::<BigInt, _>(token)
            .execute(&mut storage)
            .unwrap()
    };
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let (one, other) = (
        pool_under_test.manager(without_keep_alive()).await,
        pool_under_test.manager(without_keep_alive()).await,
    );

    let stale = one.acquire_fenced(&key, no_wait()).await.unwrap();
    let old = stale.fencing_token().unwrap();
    assert_eq!(write(old, "one"), 1);
    observer.terminate_holder(&key);
    let fresh = other.acquire_fenced(&key, no_wait()).await.unwrap();
    let new = fresh.fencing_token().unwrap();
    assert_eq!(write(new, "other"), 1);
    if !pool_under_test.kind.finds_closed_connections() {
        assert!(!stale.is_lost(), "the loss is not known yet");
    }
    assert_eq!(write(old, "one, late"), 0);
    assert_eq!(write(new, "other, again"), 1);
    fresh.release().await.unwrap();
    let stored = format!(
        "SELECT count(*) FROM {} WHERE token = {new} AND value = 'other, again'",
        table.name
    );
    assert_eq!(connect_to(&pool_under_test.url).number(&stored), 1);
}
