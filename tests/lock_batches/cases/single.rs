//! One step in a statement of its own.

use advisory_locking::session::TokenSource;
use advisory_locking::{AdvisoryLocking, LockMode, LockOptions};

use super::answers::extreme_keys;
use super::locks_of;
use crate::client::{Connect, give_back, give_back_in, take, take_in};
use crate::proxy::{Proxy, by_port, in_the_clear};
use crate::support::{connect, fresh_key, held, url};
use crate::throwaway::Database;

pub(crate) fn a_single_step_is_about_the_lock_that_it_names(open: Connect) {
    let database = Database::create();
    let mut session = open(&database.url());
    let (mut other, mut observer) = (database.connect(), database.connect());
    for key in &extreme_keys() {
        for (mode, opposite, shown) in [
            (LockMode::Exclusive, LockMode::Shared, "ExclusiveLock"),
            (LockMode::Shared, LockMode::Exclusive, "ShareLock"),
        ] {
            let context = format!("{key} {mode:?}");
            let pid = session.pid.into();
            assert_eq!(session.single(take_in(mode, key)), Some(true), "{context}");
            assert_eq!(held(&mut observer, key, pid), shown, "{context}");
            assert_eq!(locks_of(&mut observer, session.pid), 1, "{context}");
            // In the other mode it is not held.
            let not_held = session.single(give_back_in(opposite, key));
            assert_eq!(not_held, Some(false), "{context}");
            // What the one takes, a round of many finds, and the other way round.
            let found = session.serve(&[give_back_in(mode, key), take_in(mode, key)]);
            assert_eq!(found, [Some(1); 2], "{context}");
            let given_back = session.single(give_back_in(mode, key));
            assert_eq!(given_back, Some(true), "{context}");
            assert_eq!(locks_of(&mut observer, session.pid), 0, "{context}");

            let theirs = other.acquire_advisory_lock(key, LockOptions::no_wait());
            assert_eq!(session.single(take_in(mode, key)), Some(false), "{context}");
            theirs.unwrap().release().unwrap();
        }
    }
}

pub(crate) fn a_single_step_of_another_session_does_nothing(open: Connect) {
    let (mut session, mut observer) = (open(&url()), connect());
    let meant = open(&url()).pid;
    let [kept, key] = [fresh_key(), fresh_key()];
    assert_eq!(session.single(take(&kept)), Some(true));
    for step in [take(&key), take(&kept), give_back(&kept)] {
        assert_eq!(session.single_meaning(meant, step).unwrap(), None);
    }
    assert_eq!(locks_of(&mut observer, session.pid), 1);
    assert_eq!(session.single(give_back(&kept)), Some(true));
    // Once only.
    assert_eq!(session.single(give_back(&kept)), Some(false));
}

pub(crate) fn a_warm_single_step_is_one_round_trip(open: Connect) {
    let (proxy, port) = Proxy::to(&url());
    let mut session = open(&in_the_clear(&by_port(&url(), port)));
    let key = fresh_key();
    for warm in [false, true] {
        for step in [take(&key), give_back(&key)] {
            let before = proxy.round_trips();
            assert_eq!(session.single(step), Some(true), "{step:?}");
            if warm {
                assert_eq!(proxy.round_trips() - before, 1, "{step:?}");
            }
        }
    }
    // Another text of the same client is not taken for one of them.
    let row = session.serve_with(&[take(&key)], &TokenSource::default());
    assert_eq!(row.answers, Some(vec![Some(1)]));
    assert_eq!(session.single(give_back(&key)), Some(true));
}
