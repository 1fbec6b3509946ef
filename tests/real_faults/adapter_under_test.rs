//! The adapter under test, and the servers on which it runs a case.

use std::cell::Cell;

use advisory_locking::LockErrorKind::Database;
use advisory_locking::LockKey;

use crate::actor::Actor;
use crate::actor::Outcome::{self, Failed};
use crate::cases::{assert_granted_and_released, no_wait};
use crate::client;
use crate::fixture::{Fixture, Harness};
use crate::harness::postgres::Endpoint;

/// Kind of an actor's adapter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One connection, which is not replaced when it is lost.
    Connection,
    /// A pool of one connection.
    Pool,
}

/// The adapter under test.
#[derive(Clone, Copy)]
pub(crate) struct AdapterUnderTest {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Returns a harness whose actors connect to an endpoint.
    pub(crate) connect_to: fn(&Endpoint) -> Box<dyn Harness>,
}

thread_local! {
    /// The case that this test's thread runs.
    static CASE: Cell<&'static str> = const { Cell::new("") };
}

impl AdapterUnderTest {
    /// Runs a case; or the client, in a child process of a case.
    pub(crate) fn run_case(self, name: &'static str, case: fn(Self)) {
        CASE.set(name);
        match client::url_from_parent() {
            Some(url) => client::serve((self.connect_to)(&Endpoint::new(url))),
            None => case(self),
        }
    }

    /// Returns whether the client hides the SQLSTATE of a cancelled statement, as Diesel does.
    pub(crate) fn hides_sqlstate(self) -> bool {
        matches!(
            self.name,
            "diesel_postgres"
                | "r2d2_postgres"
                | "diesel_async_postgres"
                | "bb8_postgres"
                | "deadpool_postgres"
                | "mobc_postgres"
        )
    }

    /// Returns the name of the running test.
    pub(crate) fn test(self) -> String {
        format!("{}::{}", self.name, CASE.get())
    }

    /// Runs on the shared test server.
    pub(crate) fn run(self, case: impl FnOnce(&Fixture)) {
        self.run_at(&Endpoint::default(), case);
    }

    pub(crate) fn run_at(self, endpoint: &Endpoint, case: impl FnOnce(&Fixture)) {
        Fixture::run((self.connect_to)(endpoint), case);
    }

    /// Asserts that a pool replaces the lost connection, and that a connection without a pool
    /// reports an error.
    #[track_caller]
    pub(crate) fn assert_recovers(self, fixture: &Fixture, actor: &Actor, key: &LockKey) {
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
