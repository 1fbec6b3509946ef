//! The clients of lockers. Many share one locker and its few sessions, so the lock is handed on among them, and they work on connections of their own.
//!
//! A client writes on a session that does not have the lock, so it may write after a loss that it does not know of yet. That is what fencing tokens
//! are for: these clients have a counter of their own, which is told the token with each reading, and refuses a write with an older one.

pub(super) mod asynchronous;
pub(super) mod blocking;

use advisory_locking::LockKey;
use advisory_locking::lock_manager::LockManagerOptions;

use super::Shared;
use crate::history::{Event, Mode, Outcome, now};
use crate::work::{APPLICATION, Body, CallKind, FENCED_TABLE, KEYS, PlannedCall, key};

/// Of the connections to work on, which the nemesis leaves alone: its victims are the sessions that have locks.
const WORKERS: &str = "al_work";
/// One that serves, one that waits on the server.
const SESSIONS: u32 = 2;

fn application(shared: &Shared) -> String {
    format!("{APPLICATION}.{}", shared.process)
}

fn options() -> LockManagerOptions {
    LockManagerOptions::new()
}

/// Which of a locker's methods is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    All,
    Dropped,
    Fenced,
    Plain,
    With,
}

impl Call {
    /// A locker has no locks of transactions: those plans are for guards that are dropped, and for several keys.
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

/// The keys of a call for several, of which the second is recorded as a call of its own.
fn both(plan: PlannedCall, shared: &Shared) -> ([LockKey; 2], PlannedCall) {
    let second = PlannedCall {
        call: shared.recorder.next_call(),
        key: (plan.key + 1) % KEYS,
        ..plan
    };
    ([key(plan.key), key(second.key)], second)
}

/// A hold beside that of the call, whose end is its own: the two keys may be on different sessions.
struct Beside<'r> {
    call: u64,
    shared: &'r Shared,
    body: Option<Body<'r>>,
    /// Unknown, if its future is dropped.
    outcome: Outcome,
}

impl<'r> Beside<'r> {
    fn begin(plan: PlannedCall, shared: &'r Shared) -> Self {
        Self {
            call: plan.call,
            shared,
            body: Some(Body::begin(plan, &shared.recorder, &shared.storage)),
            outcome: Outcome::Dropped,
        }
    }

    /// It is about to be given back.
    fn let_go(&mut self) {
        drop(self.body.take());
    }

    fn body(&self) -> &Body<'r> {
        self.body.as_ref().expect("it is there until the end")
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        self.let_go();
        let (outcome, at) = (self.outcome, now());
        let event = Event::Ended { outcome, at };
        self.shared.recorder.write(self.call, event);
    }
}

/// Which session of this process has the lock: 0 if none. A locker has a key on one session at a time.
fn finding(plan: &PlannedCall, shared: &Shared) -> String {
    let (classid, objid, objsubid) = key(plan.key).raw().pg_locks_columns();
    format!(
        "SELECT coalesce(max(pid), 0) AS pid, count(*) AS number \
         FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE locktype = 'advisory' AND granted \
         AND classid = {classid} AND objid = {objid} AND objsubid = {objsubid} \
         AND application_name = '{}'",
        application(shared)
    )
}

/// Reads the counter and tells it the token. Those who share the lock have theirs in any order.
fn reading(plan: &PlannedCall, token: i64) -> String {
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

fn writing(plan: &PlannedCall, number: u64, token: i64) -> String {
    format!(
        "UPDATE {FENCED_TABLE} SET number = {number} WHERE key = {} AND token = {token}",
        plan.key
    )
}
