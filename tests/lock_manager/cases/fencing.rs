//! Tokens that grow, and storage that refuses a writer whose token is old.

use std::sync::{Arc, Mutex};

use advisory_locking::LockErrorKind::{Database, InvalidOptions};
use advisory_locking::lock_manager::{LockManagerOptions, TokenSource};
use diesel::RunQueryDsl;
use diesel::sql_types::BigInt;

use super::{fresh_key, kind_of, once, poll, unwatched};
use crate::eyes::Eyes;
use crate::place::Place;
use crate::support::{connect, fresh_name, number, run};

/// Something in the database, until its value is dropped.
struct Made {
    what: &'static str,
    name: String,
}

impl Made {
    fn create(what: &'static str, how: &str) -> Self {
        let name = fresh_name();
        run(&mut connect(), &format!("CREATE {what} {name} {how}"));
        Self { what, name }
    }

    fn source(&self) -> TokenSource {
        TokenSource::Sequence(self.name.as_str().into())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        run(&mut connect(), &format!("DROP {} {}", self.what, self.name));
    }
}

/// Over tasks, hand-offs, lockers and the loss of sessions.
pub(crate) async fn tokens_grow(place: Place) {
    let sequence = Made::create("SEQUENCE", "");
    for source in [TokenSource::TransactionId, sequence.source()] {
        let options = unwatched().fencing_tokens(source.clone());
        let lockers = [
            place.locker(options.clone()).await,
            place
                .locker(options.clone().hand_off_limit(0, super::NEVER))
                .await,
        ];
        let (key, tokens, mut eyes) = (
            fresh_key(),
            Arc::new(Mutex::new(Vec::new())),
            Eyes::at(&place.url),
        );
        for round in 0..3 {
            let tasks: Vec<_> = (0..8)
                .map(|task| {
                    let (locker, key) = (lockers[task % 2].clone(), key.clone());
                    let tokens = Arc::clone(&tokens);
                    let options = if task % 4 < 2 { poll() } else { super::block() };
                    tokio::spawn(async move {
                        let guard = locker.acquire_fenced(&key, options).await.unwrap();
                        tokens.lock().unwrap().push(guard.token().expect("a token"));
                        guard.release().await.unwrap();
                        let guard = locker.acquire(&key, poll()).await.unwrap();
                        assert_eq!(guard.token(), None, "nobody asked for one");
                        guard.release().await.unwrap();
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let guard = lockers[round % 2].try_acquire_fenced(&key, poll()).await;
            let guard = guard.unwrap().expect("nobody else has it");
            tokens.lock().unwrap().push(guard.token().unwrap());
            eyes.terminate_holder(&key);
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

/// The lock is not held then, and can be had without a token.
pub(crate) async fn an_unfit_sequence_is_refused(place: Place) {
    let mut eyes = Eyes::at(&place.url);
    let unfit = ["CACHE 10", "CYCLE", "INCREMENT -1"].map(|how| Made::create("SEQUENCE", how));
    let missing = TokenSource::Sequence("there_is_no_such_sequence".into());
    let sources = unfit.iter().map(|made| (made.source(), InvalidOptions));
    for (source, kind) in sources.chain([(missing, Database)]) {
        let locker = place
            .locker(LockManagerOptions::new().fencing_tokens(source.clone()))
            .await;
        let key = fresh_key();
        for options in [once(), poll()] {
            let refused = locker.acquire_fenced(&key, options).await;
            assert_eq!(kind_of(refused), Some(kind), "{source:?}");
            assert!(eyes.is_free(&key));
        }
        let guard = locker.acquire(&key, once()).await.unwrap();
        assert_eq!(guard.token(), None);
        guard.release().await.unwrap();
    }
}

/// A holder that has lost its lock, and does not know it, does no harm to storage that looks at tokens.
pub(crate) async fn a_stale_writer_is_refused(place: Place) {
    let table = Made::create("TABLE", "(token bigint NOT NULL, value text NOT NULL)");
    let mut storage = connect();
    run(
        &mut storage,
        &format!("INSERT INTO {} VALUES (0, '')", table.name),
    );
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
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let (one, other) = (
        place.locker(unwatched()).await,
        place.locker(unwatched()).await,
    );

    let stale = one.acquire_fenced(&key, once()).await.unwrap();
    let old = stale.token().unwrap();
    assert_eq!(write(old, "one"), 1);
    eyes.terminate_holder(&key);
    let fresh = other.acquire_fenced(&key, once()).await.unwrap();
    let new = fresh.token().unwrap();
    assert_eq!(write(new, "other"), 1);
    assert!(!stale.is_lost(), "it does not know");
    assert_eq!(write(old, "one, late"), 0);
    assert_eq!(write(new, "other, again"), 1);
    fresh.release().await.unwrap();
    let stored = format!(
        "SELECT count(*) FROM {} WHERE token = {new} AND value = 'other, again'",
        table.name
    );
    assert_eq!(number(&mut Eyes::at(&place.url).0, &stored), 1);
}
