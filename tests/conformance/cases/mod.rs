//! The cases, each written once. No adapter is named here.

pub(crate) mod exclusion;
pub(crate) mod keys;
pub(crate) mod options;
pub(crate) mod releasing;
pub(crate) mod scopes;
pub(crate) mod transactions;
pub(crate) mod waiting;

use std::time::Duration;

use advisory_locking::{LockKey, LockOptions, WaitStrategy};

use crate::actor::{Actor, Outcome};
use crate::stage::Stage;

/// Long enough for anything that is granted.
pub(crate) const LONG: Duration = Duration::from_secs(15);

pub(crate) const fn no_wait() -> LockOptions {
    LockOptions::no_wait()
}

/// Waits on the server.
pub(crate) const fn block(limit: Duration) -> LockOptions {
    LockOptions::wait_up_to(limit).strategy(WaitStrategy::Block)
}

/// Asks often.
const fn poll(limit: Duration) -> LockOptions {
    LockOptions::wait_up_to(limit).interval(Duration::from_millis(5))
}

/// An actor that should be kept out of a key it asked for. Where there are no locks it was really let in, and leaves.
#[track_caller]
fn assert_kept_out(stage: &Stage, actor: &Actor, outcome: Outcome, expected: Outcome) {
    assert_eq!(outcome, stage.kept_out(expected), "second session");
    if outcome == Outcome::Granted {
        assert_eq!(actor.release(), Outcome::Done);
    }
}

#[track_caller]
pub(crate) fn assert_granted_and_released(actor: &Actor, key: &LockKey) {
    assert_eq!(
        actor.acquire(key, no_wait()),
        Outcome::Granted,
        "{key} is free"
    );
    assert_eq!(actor.release(), Outcome::Done);
}
