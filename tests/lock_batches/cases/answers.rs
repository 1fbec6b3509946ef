//! The lock that each operation affects, and the order of operations and answers.

use advisory_locking::session::BatchMode::{Compensate, Execute};
use advisory_locking::session::TokenSource;
use advisory_locking::{AdvisoryLocking, LockKey, LockMode, LockOptions};
use testkit::observer::Observe;
use testkit::proxy::Proxy;
use testkit::server::{connect, fresh_key, url};
use testkit::temp::{TempDatabase, TempObject};

use super::locks_of;
use crate::client::{Connect, acquire, acquire_in, acquire_with_token, release, release_in};

const YES: Option<i64> = Some(1);

pub(crate) fn answers_are_in_the_order_of_the_operations(open: Connect) {
    let (mut session, mut other) = (open(&url()), connect());
    let [one, two] = [fresh_key(), fresh_key()];
    let contended = fresh_key();
    let _guard = other
        .acquire_advisory_lock(&contended, LockOptions::no_wait())
        .unwrap();
    // Each operation runs before the next, and a lock is released as often as acquired.
    let ops = [
        release(&one),
        acquire(&one),
        acquire(&contended),
        acquire(&one),
        acquire_in(LockMode::Shared, &contended),
        release(&one),
        release(&one),
        release(&one),
        acquire(&two),
        release(&contended),
    ];
    let answers = [None, YES, None, YES, None, YES, YES, None, YES, None];
    assert_eq!(session.execute(&ops), answers);
    assert_eq!(locks_of(&mut connect(), session.pid), 1);
    assert_eq!(session.execute(&[release(&two)]), [YES]);
}

/// The edges of both key spaces, each half with and without its sign.
pub(crate) fn extreme_keys() -> Vec<LockKey> {
    let singles = [
        i64::MIN,
        -1 << 32,
        -1,
        0,
        1,
        0x8000_0000,
        0xFFFF_FFFF,
        1 << 32,
        i64::MAX,
    ];
    let halves = [i32::MIN, -1, 0, 1, i32::MAX];
    let pairs = halves
        .iter()
        .flat_map(|first| halves.map(|second| (*first, second)));
    singles
        .into_iter()
        .map(LockKey::from)
        .chain(pairs.map(LockKey::from))
        .collect()
}

pub(crate) fn operation_affects_the_lock_it_names(open: Connect) {
    // A database of its own, because other tests use these keys too.
    let database = TempDatabase::create();
    let mut session = open(&database.url());
    let (mut other, mut observer) = (database.connect(), database.connect());
    let keys = extreme_keys();
    for key in &keys {
        for (mode, shown) in [
            (LockMode::Exclusive, "ExclusiveLock"),
            (LockMode::Shared, "ShareLock"),
        ] {
            let context = format!("{key} {mode:?}");
            let is_granted = |other: &mut _, options| {
                let acquired = AdvisoryLocking::try_acquire_advisory_lock(other, key, options);
                acquired.unwrap().is_some()
            };
            assert_eq!(
                session.execute(&[acquire_in(mode, key)]),
                [YES],
                "{context}"
            );
            assert_eq!(observer.held_modes(key, session.pid), shown, "{context}");
            assert_eq!(locks_of(&mut observer, session.pid), 1, "{context}");
            let exclusive = LockOptions::no_wait();
            assert!(!is_granted(&mut other, exclusive), "{context}");
            assert_eq!(
                is_granted(&mut other, exclusive.shared()),
                mode == LockMode::Shared,
                "{context}"
            );
            // The lock is not held in the other mode.
            let opposite = match mode {
                LockMode::Exclusive => LockMode::Shared,
                LockMode::Shared => LockMode::Exclusive,
            };
            assert_eq!(
                session.execute(&[release_in(opposite, key)]),
                [None],
                "{context}"
            );
            assert_eq!(
                session.execute(&[release_in(mode, key)]),
                [YES],
                "{context}"
            );
            assert_eq!(locks_of(&mut observer, session.pid), 0, "{context}");
            assert!(is_granted(&mut other, exclusive), "{context}");

            let theirs = other.acquire_advisory_lock(key, exclusive).unwrap();
            assert_eq!(
                session.execute(&[acquire_in(mode, key)]),
                [None],
                "{context}"
            );
            theirs.release().unwrap();
            // A compensation finds the lock that a batch acquired.
            assert_eq!(
                session.execute(&[acquire_in(mode, key)]),
                [YES],
                "{context}"
            );
            assert_eq!(
                session.compensate(&[acquire_in(opposite, key), acquire_in(mode, key)]),
                [None, YES],
                "{context}"
            );
            assert_eq!(locks_of(&mut observer, session.pid), 0, "{context}");
        }
    }
    // All the keys differ.
    let all: Vec<_> = keys.iter().map(acquire).collect();
    assert_eq!(session.execute(&all), vec![YES; keys.len()]);
    assert_eq!(
        locks_of(&mut observer, session.pid),
        i64::try_from(keys.len()).unwrap()
    );
}

pub(crate) fn other_session_runs_no_operation(open: Connect) {
    let (mut session, mut observer) = (open(&url()), connect());
    let expected = open(&url()).pid;
    let [kept, key] = [fresh_key(), fresh_key()];
    let sequence = TempObject::create("SEQUENCE", "");
    assert_eq!(session.execute(&[acquire(&kept)]), [YES]);
    for tokens in [TokenSource::TransactionId, sequence.source()] {
        for kind in [Execute, Compensate] {
            let ops = [release(&kept), acquire_with_token(&key), acquire(&kept)];
            let row = session.send_to_pid(expected, kind, &ops, &tokens).unwrap();
            assert_eq!((row.answers, row.token, row.pid), (None, None, session.pid));
        }
    }
    assert_eq!(locks_of(&mut observer, session.pid), 1);
    assert_eq!(observer.held_modes(&kept, session.pid), "ExclusiveLock");
    let issued = format!("SELECT is_called::int FROM {}", sequence.name);
    assert_eq!(observer.number(&issued), 0);

    // 0 expects no particular session.
    let row = session
        .send_to_pid(0, Execute, &[acquire(&key)], &TokenSource::default())
        .unwrap();
    assert_eq!((row.answers, row.pid), (Some(vec![YES]), session.pid));
    assert_eq!(locks_of(&mut observer, session.pid), 2);
}

pub(crate) fn empty_batch_tests_whether_the_session_is_alive(open: Connect) {
    let (mut session, mut observer) = (open(&url()), connect());
    for kind in [Execute, Compensate] {
        let row = session.send(kind, &[], &TokenSource::default()).unwrap();
        assert_eq!((row.answers, row.token, row.pid), (None, None, session.pid));
    }
    observer.terminate(session.pid);
    let error = session
        .send(Execute, &[], &TokenSource::default())
        .unwrap_err();
    // The client reports the end with the first error after it, or with the second.
    let reported = error.is_disconnected()
        || session
            .send(Execute, &[], &TokenSource::default())
            .unwrap_err()
            .is_disconnected();
    assert!(reported, "{error:?}");
}

pub(crate) fn prepared_batch_is_one_round_trip(open: Connect) {
    let proxy = Proxy::to(&url());
    let mut session = open(&proxy.url());
    let key = fresh_key();
    let sequence = TempObject::create("SEQUENCE", "");
    let batches = [
        (
            Execute,
            acquire_with_token(&key),
            TokenSource::TransactionId,
        ),
        (Execute, release(&key), TokenSource::TransactionId),
        (Execute, acquire_with_token(&key), sequence.source()),
        (
            Compensate,
            acquire_with_token(&key),
            TokenSource::TransactionId,
        ),
    ];
    for warm in [false, true] {
        for (kind, op, tokens) in &batches {
            let before = proxy.round_trips();
            let row = session.send(*kind, &[*op], tokens).unwrap();
            assert!(row.answers.unwrap()[0].is_some(), "{kind:?} {op:?}");
            if warm {
                assert_eq!(
                    proxy.round_trips() - before,
                    1,
                    "{kind:?} {op:?} {tokens:?}"
                );
            }
        }
    }
}
