//! Clients of lock managers.
//!
//! Many clients share one lock manager and its few sessions, so it hands the lock off between them.
//! They work on connections of their own. A client writes on another session than the one that
//! holds the lock, so it may write after a loss that it does not know of yet. Fencing tokens
//! prevent that: these clients use a counter of their own, which stores the token of each read and
//! rejects a write with an older token.

pub(super) mod asynchronous;
pub(super) mod blocking;

use advisory_locking::LockKey;
use advisory_locking::lock_manager::LockManagerOptions;

use super::Shared;
use crate::history::{Event, Mode, Outcome, now};
use crate::work::{APPLICATION, Body, CallKind, FENCED_TABLE, KEYS, PlannedCall, key};

/// The application name of the connections to work on. The nemesis terminates only the sessions
/// that hold locks.
const WORKER_APPLICATION: &str = "al_work";
/// One session that serves requests, and one that waits on the server.
const SESSIONS: u32 = 2;

fn application(shared: &Shared) -> String {
    format!("{APPLICATION}.{}", shared.process)
}

fn options() -> LockManagerOptions {
    LockManagerOptions::new()
}

/// The method that is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    All,
    Dropped,
    Fenced,
    Plain,
    With,
}

impl Call {
    /// A lock manager has no transaction-level locks. Plans for them drop a guard or acquire
    /// several keys.
    const fn of(plan: &PlannedCall) -> Self {
        match (plan.kind, plan.call % 2) {
            (CallKind::Guard, _) => Self::Fenced,
            (CallKind::With, 0) => Self::With,
            (CallKind::With, _) => Self::Plain,
            (CallKind::Transaction, 0) => Self::All,
            (CallKind::Transaction, _) => Self::Dropped,
        }
    }
}

/// Returns the keys of a call for several keys. The second one is recorded as a call of its own.
fn both(plan: PlannedCall, shared: &Shared) -> ([LockKey; 2], PlannedCall) {
    let second = PlannedCall {
        call: shared.recorder.next_call(),
        key: (plan.key + 1) % KEYS,
        ..plan
    };
    ([key(plan.key), key(second.key)], second)
}

/// The hold of the second key. It ends by itself: the two keys may be on different sessions.
struct SecondHold<'r> {
    call: u64,
    shared: &'r Shared,
    body: Option<Body<'r>>,
    /// Unknown if the future is dropped.
    outcome: Outcome,
}

impl<'r> SecondHold<'r> {
    fn begin(plan: PlannedCall, shared: &'r Shared) -> Self {
        Self {
            call: plan.call,
            shared,
            body: Some(Body::begin(plan, &shared.recorder, &shared.storage)),
            outcome: Outcome::Dropped,
        }
    }

    /// Ends the body, before the release.
    fn end_body(&mut self) {
        drop(self.body.take());
    }

    fn body(&self) -> &Body<'r> {
        self.body.as_ref().expect("it is there until the end")
    }
}

impl Drop for SecondHold<'_> {
    fn drop(&mut self) {
        self.end_body();
        let (outcome, at) = (self.outcome, now());
        let event = Event::Ended { outcome, at };
        self.shared.recorder.write(self.call, event);
    }
}

/// Returns the query for the session of this process that holds the lock, or 0.
///
/// A lock manager holds a key on one session at a time. A session whose shared wait it has ended
/// may still be granted the lock, and shows it until its end. So an ambiguous answer is queried
/// again.
fn find_session_sql(plan: &PlannedCall, shared: &Shared) -> String {
    let condition = key(plan.key).pg_locks().sql_condition();
    format!(
        "SELECT coalesce(max(pid), 0) AS pid, count(*) AS number \
         FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE {condition} AND granted AND application_name = '{}'",
        application(shared)
    )
}

/// Returns the statement that reads the counter and stores the token. Tokens of shared holders come
/// in any order.
fn read_sql(plan: &PlannedCall, token: i64) -> String {
    let fence = match plan.mode {
        Mode::Exclusive => format!("AND token <= {token}"),
        Mode::Shared => String::new(),
    };
    format!(
        "UPDATE {FENCED_TABLE} SET token = greatest(token, {token}) WHERE key = {} {fence} \
         RETURNING 0 AS pid, number",
        plan.key
    )
}

fn write_sql(plan: &PlannedCall, number: u64, token: i64) -> String {
    format!(
        "UPDATE {FENCED_TABLE} SET number = {number} WHERE key = {} AND token = {token}",
        plan.key
    )
}
