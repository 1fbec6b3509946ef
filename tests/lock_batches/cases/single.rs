//! One operation in a statement of its own.

use advisory_locking::session::TokenSource;
use advisory_locking::{AdvisoryLocking, LockMode, LockOptions};
use testkit::observer::Observe;
use testkit::proxy::Proxy;
use testkit::server::{connect, fresh_key, url};
use testkit::temp::TempDatabase;

use super::answers::extreme_keys;
use super::locks_of;
use crate::client::{Connect, acquire, acquire_in, release, release_in};

pub(crate) fn single_operation_affects_the_lock_it_names(open: Connect) {
    let database = TempDatabase::create();
    let mut session = open(&database.url());
    let (mut other, mut observer) = (database.connect(), database.connect());
    for key in &extreme_keys() {
        for (mode, opposite, shown) in [
            (LockMode::Exclusive, LockMode::Shared, "ExclusiveLock"),
            (LockMode::Shared, LockMode::Exclusive, "ShareLock"),
        ] {
            let context = format!("{key} {mode:?}");
            let pid = session.pid;
            assert_eq!(
                session.single(acquire_in(mode, key)),
                Some(true),
                "{context}"
            );
            assert_eq!(observer.held_modes(key, pid), shown, "{context}");
            assert_eq!(locks_of(&mut observer, session.pid), 1, "{context}");
            // The lock is not held in the other mode.
            let not_held = session.single(release_in(opposite, key));
            assert_eq!(not_held, Some(false), "{context}");
            // A batch finds the lock that a single operation acquired, and the other way round.
            let found = session.execute(&[release_in(mode, key), acquire_in(mode, key)]);
            assert_eq!(found, [Some(1); 2], "{context}");
            let released = session.single(release_in(mode, key));
            assert_eq!(released, Some(true), "{context}");
            assert_eq!(locks_of(&mut observer, session.pid), 0, "{context}");

            let theirs = other.acquire_advisory_lock(key, LockOptions::no_wait());
            assert_eq!(
                session.single(acquire_in(mode, key)),
                Some(false),
                "{context}"
            );
            theirs.unwrap().release().unwrap();
        }
    }
}

pub(crate) fn single_operation_does_nothing_on_another_session(open: Connect) {
    let (mut session, mut observer) = (open(&url()), connect());
    let expected = open(&url()).pid;
    let [kept, key] = [fresh_key(), fresh_key()];
    assert_eq!(session.single(acquire(&kept)), Some(true));
    for op in [acquire(&key), acquire(&kept), release(&kept)] {
        assert_eq!(session.single_to_pid(expected, op), None);
    }
    assert_eq!(locks_of(&mut observer, session.pid), 1);
    assert_eq!(session.single(release(&kept)), Some(true));
    // It was held once only.
    assert_eq!(session.single(release(&kept)), Some(false));
}

pub(crate) fn prepared_single_operation_is_one_round_trip(open: Connect) {
    let proxy = Proxy::to(&url());
    let mut session = open(&proxy.url());
    let key = fresh_key();
    for warm in [false, true] {
        for op in [acquire(&key), release(&key)] {
            let before = proxy.round_trips();
            assert_eq!(session.single(op), Some(true), "{op:?}");
            if warm {
                assert_eq!(proxy.round_trips() - before, 1, "{op:?}");
            }
        }
    }
    // The client does not confuse the text of a batch with these.
    let row = session.execute_with(&[acquire(&key)], &TokenSource::default());
    assert_eq!(row.answers, Some(vec![Some(1)]));
    assert_eq!(session.single(release(&key)), Some(true));
}
