//! Which lock each step is about, and in which order they are done and answered.

use advisory_locking::session::BatchMode::{Compensate, Execute};
use advisory_locking::session::TokenSource;
use advisory_locking::{AdvisoryLocking, LockKey, LockMode, LockOptions};

use super::locks_of;
use crate::client::{Connect, give_back, give_back_in, take, take_fenced, take_in};
use crate::proxy::{Proxy, by_port, in_the_clear};
use crate::support::{connect, fresh_key, fresh_name, held, number, run, url};
use crate::throwaway::Database;

const YES: Option<i64> = Some(1);

pub(crate) fn answers_come_in_the_order_of_the_steps(open: Connect) {
    let (mut session, mut other) = (open(&url()), connect());
    let [one, two] = [fresh_key(), fresh_key()];
    let busy = fresh_key();
    let _guard = other
        .acquire_advisory_lock(&busy, LockOptions::no_wait())
        .unwrap();
    // Given back as often as taken, before and after, and each done before the next.
    let steps = [
        give_back(&one),
        take(&one),
        take(&busy),
        take(&one),
        take_in(LockMode::Shared, &busy),
        give_back(&one),
        give_back(&one),
        give_back(&one),
        take(&two),
        give_back(&busy),
    ];
    let answers = [None, YES, None, YES, None, YES, YES, None, YES, None];
    assert_eq!(session.serve(&steps), answers);
    assert_eq!(locks_of(&mut connect(), session.pid), 1);
    assert_eq!(session.serve(&[give_back(&two)]), [YES]);
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

pub(crate) fn every_step_is_about_the_lock_that_it_names(open: Connect) {
    // Of its own, because the keys are everybody's.
    let database = Database::create();
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
            assert_eq!(session.serve(&[take_in(mode, key)]), [YES], "{context}");
            assert_eq!(
                held(&mut observer, key, session.pid.into()),
                shown,
                "{context}"
            );
            assert_eq!(locks_of(&mut observer, session.pid), 1, "{context}");
            let exclusive = LockOptions::no_wait();
            assert!(!is_granted(&mut other, exclusive), "{context}");
            assert_eq!(
                is_granted(&mut other, exclusive.shared()),
                mode == LockMode::Shared,
                "{context}"
            );
            // In the other mode it is not held.
            let opposite = match mode {
                LockMode::Exclusive => LockMode::Shared,
                LockMode::Shared => LockMode::Exclusive,
            };
            assert_eq!(
                session.serve(&[give_back_in(opposite, key)]),
                [None],
                "{context}"
            );
            assert_eq!(
                session.serve(&[give_back_in(mode, key)]),
                [YES],
                "{context}"
            );
            assert_eq!(locks_of(&mut observer, session.pid), 0, "{context}");
            assert!(is_granted(&mut other, exclusive), "{context}");

            let theirs = other.acquire_advisory_lock(key, exclusive).unwrap();
            assert_eq!(session.serve(&[take_in(mode, key)]), [None], "{context}");
            theirs.release().unwrap();
            // What the one takes, the undoing of the other finds.
            assert_eq!(session.serve(&[take_in(mode, key)]), [YES], "{context}");
            assert_eq!(
                session.undo(&[take_in(opposite, key), take_in(mode, key)]),
                [None, YES],
                "{context}"
            );
            assert_eq!(locks_of(&mut observer, session.pid), 0, "{context}");
        }
    }
    // None of them is another.
    let all: Vec<_> = keys.iter().map(take).collect();
    assert_eq!(session.serve(&all), vec![YES; keys.len()]);
    assert_eq!(
        locks_of(&mut observer, session.pid),
        i64::try_from(keys.len()).unwrap()
    );
}

pub(crate) fn another_session_does_nothing(open: Connect) {
    let (mut session, mut observer) = (open(&url()), connect());
    let meant = open(&url()).pid;
    let [kept, key] = [fresh_key(), fresh_key()];
    let sequence = fresh_name();
    run(&mut observer, &format!("CREATE SEQUENCE {sequence}"));
    assert_eq!(session.serve(&[take(&kept)]), [YES]);
    for tokens in [
        TokenSource::TransactionId,
        TokenSource::Sequence(sequence.as_str().into()),
    ] {
        for kind in [Execute, Compensate] {
            let steps = [give_back(&kept), take_fenced(&key), take(&kept)];
            let row = session.ask_meaning(meant, kind, &steps, &tokens).unwrap();
            assert_eq!((row.answers, row.token, row.pid), (None, None, session.pid));
        }
    }
    assert_eq!(locks_of(&mut observer, session.pid), 1);
    assert_eq!(
        held(&mut observer, &kept, session.pid.into()),
        "ExclusiveLock"
    );
    let drawn = format!("SELECT is_called::int FROM {sequence}");
    assert_eq!(number(&mut observer, &drawn), 0);

    // Nobody in particular is whoever answers.
    let row = session
        .ask_meaning(0, Execute, &[take(&key)], &TokenSource::default())
        .unwrap();
    assert_eq!((row.answers, row.pid), (Some(vec![YES]), session.pid));
    assert_eq!(locks_of(&mut observer, session.pid), 2);
    run(&mut observer, &format!("DROP SEQUENCE {sequence}"));
}

pub(crate) fn without_steps_it_asks_whether_the_session_lives(open: Connect) {
    let (mut session, mut observer) = (open(&url()), connect());
    for kind in [Execute, Compensate] {
        let row = session.ask(kind, &[], &TokenSource::default()).unwrap();
        assert_eq!((row.answers, row.token, row.pid), (None, None, session.pid));
    }
    crate::support::terminate(&mut observer, session.pid.into());
    let error = session
        .ask(Execute, &[], &TokenSource::default())
        .unwrap_err();
    // The first error after the end says so, or the second.
    let said = error.is_disconnected()
        || session
            .ask(Execute, &[], &TokenSource::default())
            .unwrap_err()
            .is_disconnected();
    assert!(said, "{error:?}");
}

pub(crate) fn a_warm_round_is_one_round_trip(open: Connect) {
    let (proxy, port) = Proxy::to(&url());
    let mut session = open(&in_the_clear(&by_port(&url(), port)));
    let key = fresh_key();
    let sequence = fresh_name();
    run(&mut connect(), &format!("CREATE SEQUENCE {sequence}"));
    let named = TokenSource::Sequence(sequence.as_str().into());
    let rounds = [
        (Execute, take_fenced(&key), TokenSource::TransactionId),
        (Execute, give_back(&key), TokenSource::TransactionId),
        (Execute, take_fenced(&key), named),
        (Compensate, take_fenced(&key), TokenSource::TransactionId),
    ];
    for warm in [false, true] {
        for (kind, step, tokens) in &rounds {
            let before = proxy.round_trips();
            let row = session.ask(*kind, &[*step], tokens).unwrap();
            assert!(row.answers.unwrap()[0].is_some(), "{kind:?} {step:?}");
            if warm {
                assert_eq!(
                    proxy.round_trips() - before,
                    1,
                    "{kind:?} {step:?} {tokens:?}"
                );
            }
        }
    }
    drop(session);
    run(&mut connect(), &format!("DROP SEQUENCE {sequence}"));
}
