//! Reports: the sessions that hold a lock, and the sessions that wait for it.

use super::{LONG, block, no_wait};
use crate::actor::Outcome::{Done, Granted, Reported};
use crate::fixture::{Fixture, pid};

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
