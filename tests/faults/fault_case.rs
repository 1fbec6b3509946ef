//! One call with its faults, and the assertions after it.

use std::sync::Mutex;
use std::time::Duration;

use advisory_locking::session::{LockSession, TransactionState};
use advisory_locking::{
    AdvisoryLocking, LockErrorKind, LockKey, LockMode, LockOptions, WaitStrategy,
};

use crate::call::{Call, CallResult};
use crate::client::{CallReport, Client};
use testkit::model::{Fault, Held, Model, ModelSession};

/// The other session's lock on the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Contention {
    None,
    Shared,
    Exclusive,
}

#[derive(Clone, Debug)]
pub(crate) struct FaultCase {
    pub(crate) call: Call,
    pub(crate) client: Client,
    pub(crate) mode: LockMode,
    pub(crate) contention: Contention,
    /// Wait strategy; `None` does not wait.
    pub(crate) strategy: Option<WaitStrategy>,
    /// The client hides the SQLSTATE, as Diesel does.
    pub(crate) hides_codes: bool,
    /// The session already holds the key once, in shared mode.
    pub(crate) nested: bool,
    pub(crate) faults: Vec<(usize, Fault)>,
    /// The other session releases before this request.
    pub(crate) release_others_at: Option<usize>,
    /// The future is dropped after it was pending this many times.
    pub(crate) dropped_at: Option<usize>,
}

impl FaultCase {
    fn options(&self) -> LockOptions {
        let wait = LockOptions::wait_up_to(Duration::from_millis(1));
        match self.strategy {
            None => LockOptions::no_wait(),
            Some(WaitStrategy::Block) => wait.strategy(WaitStrategy::Block),
            Some(_) => wait.interval(Duration::from_micros(500)),
        }
        .mode(self.mode)
    }

    /// Runs the case with all assertions. Returns the number of the session's requests.
    pub(crate) fn run(&self) -> usize {
        self.execute().0
    }

    /// Runs the case. Returns `true` if the future was dropped before it was ready.
    pub(crate) fn run_until_dropped(&self) -> bool {
        matches!(self.execute().1, CallResult::FutureDropped)
    }

    fn execute(&self) -> (usize, CallResult) {
        let model = Model::default();
        let key = LockKey::from("case");
        let mut other = model.connect();
        let others = match self.contention {
            Contention::None => None,
            Contention::Shared => Some(LockOptions::no_wait().shared()),
            Contention::Exclusive => Some(LockOptions::no_wait()),
        };
        let others = others.map(|options| other.acquire_advisory_lock(&key, options).unwrap());
        let mut session = model.connect();
        let outer = self.nested && self.contention != Contention::Exclusive;
        if outer {
            // Leaked, so that the session keeps this level beside the call's own.
            std::mem::forget(
                session
                    .acquire_advisory_lock(&key, LockOptions::no_wait().shared())
                    .unwrap(),
            );
        }
        match self.call {
            Call::InTestTransaction => session.begin_test().unwrap(),
            call if call.begins_transaction() => session.session_begin().unwrap(),
            _ => {}
        }
        let pid = session.pid();
        let before = locks_of(&model, &key, pid);
        session.hides_codes = self.hides_codes;
        let first = session.faults.requests();
        for (request, fault) in &self.faults {
            session.faults.plan(first + request, *fault);
        }
        if let Some(request) = self.release_others_at {
            session.faults.others_leave_at(first + request);
        }

        let held_in_body = Mutex::new(None);
        let options = self.options();
        let inspect = || {
            let held = model.held(&key);
            *held_in_body.lock().unwrap() =
                Some(held.iter().any(|held| self.is_own_lock(held, pid)));
        };
        let CallReport { result, left } =
            self.client
                .call(self.call, session, &key, options, self.dropped_at, inspect);

        self.check_result(&result, held_in_body.into_inner().unwrap());
        let requests = if let Some(mut session) = left {
            let requests = session.faults.requests() - first;
            // Faults that were not reached must not hit the checks.
            session.faults = Default::default();
            // The report of the holders, which changes no outcome, is the last request.
            let in_report = self.faults.iter().any(|(at, _)| at + 1 == requests);
            self.check_session(&mut session, &result, in_report, &key, &before);
            requests
        } else {
            let left = locks_of(&model, &key, pid);
            assert!(
                left.is_empty(),
                "{self:?}: the pool discarded a session that holds {left:?}"
            );
            1
        };
        assert!(requests < 60, "{self:?}: {requests} requests");
        if let (Some(others), None) = (others, self.release_others_at) {
            others.release().unwrap_or_else(|error| {
                panic!("{self:?}: the other's lock was touched: {error:?}")
            });
        }
        (requests, result)
    }

    fn is_own_lock(&self, held: &Held, pid: i32) -> bool {
        held.pid == pid && held.granted && held.mode == self.mode
    }

    fn check_result(&self, result: &CallResult, held_in_body: Option<bool>) {
        // A lost session shows at the next request only, so `None` is not an error here.
        assert_ne!(
            held_in_body,
            Some(false),
            "{self:?}: the body ran without the lock"
        );
        match result {
            CallResult::Held | CallResult::GuardDropped | CallResult::BodyFailed => {
                assert!(
                    held_in_body.is_some(),
                    "{self:?}: {result:?} without a body"
                )
            }
            CallResult::NotGranted => assert!(
                held_in_body.is_none(),
                "{self:?}: the body ran without a grant"
            ),
            CallResult::Failed(_) | CallResult::Panicked | CallResult::FutureDropped => {}
        }
        if matches!(
            result,
            CallResult::Held | CallResult::GuardDropped | CallResult::BodyFailed
        ) {
            let excluded = self.contention == Contention::Exclusive
                || (self.contention == Contention::Shared && self.mode == LockMode::Exclusive);
            assert!(
                !excluded || self.release_others_at.is_some(),
                "{self:?}: granted against a holder"
            );
        }
        if self.faults.is_empty() {
            // A loaded machine may need longer for a checkout than the limit allows.
            let late_checkout = matches!(result, CallResult::Failed(LockErrorKind::Pool));
            assert!(
                late_checkout || !matches!(result, CallResult::Failed(_)),
                "{self:?}: {result:?} without a fault"
            );
        }
    }

    /// Asserts that the session holds the same locks as before, or has ended. Rolls back the
    /// caller's own transaction first.
    fn check_session(
        &self,
        session: &mut ModelSession,
        result: &CallResult,
        in_report: bool,
        key: &LockKey,
        before: &[Held],
    ) {
        let model = session.model().clone();
        let pid = session.pid();
        if session.session_transaction_state() == TransactionState::broken() {
            let left = locks_of(&model, key, pid);
            assert!(
                left.is_empty(),
                "{self:?}: a terminated session holds {left:?}"
            );
            let refused = session
                .acquire_advisory_lock(key, LockOptions::no_wait())
                .map(drop)
                .unwrap_err();
            assert_eq!(
                refused.kind(),
                LockErrorKind::Database,
                "{self:?}: a terminated session is used again"
            );
            return;
        }
        if model.run(|server| server.written(pid)) == Err("08006") {
            let possible = match result {
                CallResult::Held => false,
                CallResult::NotGranted => in_report,
                _ => true,
            };
            assert!(possible, "{self:?}: {result:?} on a session that has ended");
            return;
        }
        if self.call.begins_transaction() {
            if matches!(
                result,
                CallResult::NotGranted | CallResult::Failed(LockErrorKind::Deadlock)
            ) {
                let usable = model.run(|server| server.write(pid));
                assert_eq!(
                    usable,
                    Ok(()),
                    "{self:?}: {result:?} left the transaction unusable"
                );
            }
            let _ = session.session_rollback();
        }
        assert_eq!(
            session.session_transaction_state().depth(),
            0,
            "{self:?}: a transaction is left open"
        );
        let after = locks_of(&model, key, pid);
        assert_eq!(
            after, before,
            "{self:?}: {result:?} left the session with other locks than before"
        );
    }
}

/// Returns the locks that the server shows for a session.
fn locks_of(model: &Model, key: &LockKey, pid: i32) -> Vec<Held> {
    model
        .held(key)
        .into_iter()
        .filter(|held| held.pid == pid)
        .collect()
}
