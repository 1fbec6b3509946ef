//! An adapter, and the ways to play a case on it.

use std::cell::Cell;

use advisory_locking::LockErrorKind::Database;
use advisory_locking::LockKey;

use crate::actor::Actor;
use crate::actor::Outcome::{self, Failed};
use crate::cases::{assert_granted_and_released, no_wait};
use crate::client;
use crate::fixture::{Fixture, Harness};
use crate::harness::postgres::Endpoint;

/// What an actor of the adapter has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One connection, which nobody replaces.
    Connection,
    /// A pool of one connection.
    Pool,
}

/// An adapter.
#[derive(Clone, Copy)]
pub(crate) struct AdapterUnderTest {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Puts the adapter's actors to where they are to connect.
    pub(crate) connect_to: fn(&Endpoint) -> Box<dyn Harness>,
}

thread_local! {
    /// The case that this test's thread plays.
    static CASE: Cell<&'static str> = const { Cell::new("") };
}

impl AdapterUnderTest {
    /// Plays a case; or, in a process that a case has started, its client.
    pub(crate) fn run_case(self, name: &'static str, case: fn(Self)) {
        CASE.set(name);
        match client::told_by_parent() {
            Some(url) => client::serve((self.connect_to)(&Endpoint::new(url))),
            None => case(self),
        }
    }

    /// The name of the test that runs.
    pub(crate) fn test(self) -> String {
        format!("{}::{}", self.name, CASE.get())
    }

    /// Plays on the server of all tests.
    pub(crate) fn run(self, case: impl FnOnce(&Fixture)) {
        self.run_at(&Endpoint::default(), case);
    }

    pub(crate) fn run_at(self, endpoint: &Endpoint, case: impl FnOnce(&Fixture)) {
        Fixture::run((self.connect_to)(endpoint), case);
    }

    /// After its session has ended, a pool gives a new connection, and a single connection says that it is gone.
    #[track_caller]
    pub(crate) fn assert_goes_on(self, fixture: &Fixture, actor: &Actor, key: &LockKey) {
        match self.kind {
            Kind::Pool => assert_granted_and_released(actor, key),
            Kind::Connection => {
                assert_eq!(actor.acquire(key, no_wait()), Failed(Database));
                assert_granted_and_released(&fixture.actor(), key);
            }
        }
    }
}

/// Asserts that an outcome is one of several.
#[track_caller]
pub(crate) fn assert_any(outcome: Outcome, expected: &[Outcome]) {
    assert!(
        expected.contains(&outcome),
        "{outcome:?} is none of {expected:?}"
    );
}
