//! Reports: the sessions that hold a lock, and the sessions that wait for it.

use std::time::Duration;

use super::{LONG, block, no_wait, poll};
use crate::actor::Outcome::{Answered, Done, Granted, Reported};
use crate::fixture::{Fixture, pid};

/// Limit of a wait that ends without a grant.
const SHORT: Duration = Duration::from_millis(20);

pub(crate) fn guard_shows_its_session(fixture: &Fixture) {
    let holder = fixture.actor();
    let key = fixture.key("shown");
    assert_eq!(holder.acquire(&key, no_wait()), Granted);
    let expected = fixture.excludes().then(|| i64::from(pid(&holder)));
    assert_eq!(holder.guard_pid(), Answered(expected));
    assert_eq!(holder.release(), Done);
}

pub(crate) fn report_lists_holder_and_waiters(fixture: &Fixture) {
    let [holder, waiter, other] = fixture.actors();
    let key = fixture.key("reported");
    let none = || Reported(Vec::new(), Vec::new());
    assert_eq!(other.report(&key), none());
    assert_eq!(holder.acquire(&key, no_wait()), Granted);
    if !fixture.excludes() {
        assert_eq!(holder.report(&key), none());
        assert_eq!(holder.release(), Done);
        return;
    }
    let (held_by, awaited_by) = (Some(pid(&holder)), Some(pid(&waiter)));
    assert_eq!(holder.report(&key), Reported(vec![held_by], Vec::new()));
    waiter.start_acquire(&key, block(LONG));
    fixture.until_queued(&key, 1);
    let both = || Reported(vec![held_by], vec![awaited_by]);
    assert_eq!(holder.report(&key), both());
    assert_eq!(other.report(&key), both());
    assert_eq!(holder.release(), Done);
    assert_eq!(waiter.finish(), Granted);
    // A connection from a pool is that of the guard.
    assert_eq!(
        waiter.report(&key),
        Reported(vec![Some(pid(&waiter))], Vec::new())
    );
    assert_eq!(waiter.release(), Done);
}

pub(crate) fn error_names_holder_as_options_say(fixture: &Fixture) {
    let [holder, requester] = fixture.actors();
    let key = fixture.key("explained");
    assert_eq!(holder.acquire(&key, no_wait()), Granted);
    if fixture.excludes() {
        let named = || Reported(vec![Some(pid(&holder))], Vec::new());
        let unnamed = || Reported(Vec::new(), Vec::new());
        for (options, expected) in [
            (poll(SHORT), named()),
            (block(SHORT), named()),
            (poll(SHORT).report_holders(false), unnamed()),
            (no_wait(), unnamed()),
            (no_wait().report_holders(true), named()),
        ] {
            // A loaded machine may need longer for the report than the crate waits.
            let mut explained = requester.explain(&key, options);
            for _ in 0..100 {
                if explained == expected {
                    break;
                }
                explained = requester.explain(&key, options);
            }
            assert_eq!(explained, expected, "{options:?}");
        }
    }
    assert_eq!(holder.release(), Done);
    // The connection still works.
    assert_eq!(requester.acquire(&key, no_wait()), Granted);
    assert_eq!(requester.release(), Done);
}
