//! One call with its faults, and what must be true afterwards.

use std::sync::Mutex;
use std::time::Duration;

use advisory_locking::session::{LockSession, TransactionState};
use advisory_locking::{
    AdvisoryLocking, LockErrorKind, LockKey, LockMode, LockOptions, WaitStrategy,
};

use crate::call::{Call, Told};
use crate::client::{Called, Client};
use crate::model::{Fault, Held, Model, ModelSession};

/// Who else has the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Others {
    Nobody,
    Sharer,
    Holder,
}

#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) call: Call,
    pub(crate) client: Client,
    pub(crate) mode: LockMode,
    pub(crate) others: Others,
    /// `None` does not wait.
    pub(crate) strategy: Option<WaitStrategy>,
    /// The client shows no codes, as Diesel.
    pub(crate) hides_codes: bool,
    /// The session holds the key already, in shared mode, at its own level.
    pub(crate) nested: bool,
    pub(crate) faults: Vec<(usize, Fault)>,
    /// The others are gone just before this request.
    pub(crate) others_leave_at: Option<usize>,
    /// The call's future is dropped when it has been pending so often.
    pub(crate) dropped_at: Option<usize>,
}

impl Trial {
    fn options(&self) -> LockOptions {
        let wait = LockOptions::wait_up_to(Duration::from_millis(1));
        match self.strategy {
            None => LockOptions::no_wait(),
            Some(WaitStrategy::Block) => wait.strategy(WaitStrategy::Block),
            Some(_) => wait.interval(Duration::from_micros(500)),
        }
        .mode(self.mode)
    }

    /// Runs the trial and asserts what every outcome owes. Returns how many requests the session made.
    pub(crate) fn run(&self) -> usize {
        self.play().0
    }

    /// Whether the future was dropped; if not, it was done before.
    pub(crate) fn run_and_tell_whether_it_hung(&self) -> bool {
        matches!(self.play().1, Told::Abandoned)
    }

    fn play(&self) -> (usize, Told) {
        let model = Model::default();
        let key = LockKey::from("trial");
        let mut other = model.connect();
        let others = match self.others {
            Others::Nobody => None,
            Others::Sharer => Some(LockOptions::no_wait().shared()),
            Others::Holder => Some(LockOptions::no_wait()),
        };
        let others = others.map(|options| other.acquire_advisory_lock(&key, options).unwrap());
        let mut session = model.connect();
        let outer = self.nested && self.others != Others::Holder;
        if outer {
            // Never released by the call: the guard is leaked so that this level stays the application's own.
            std::mem::forget(
                session
                    .acquire_advisory_lock(&key, LockOptions::no_wait().shared())
                    .unwrap(),
            );
        }
        match self.call {
            Call::InTestTransaction => session.begin_test().unwrap(),
            call if call.begins_by_hand() => session.session_begin().unwrap(),
            _ => {}
        }
        let pid = session.pid();
        let before = shown(&model, &key, pid);
        session.hides_codes = self.hides_codes;
        let first = session.faults.requests();
        for (request, fault) in &self.faults {
            session.faults.plan(first + request, *fault);
        }
        if let Some(request) = self.others_leave_at {
            session.faults.others_leave_at(first + request);
        }

        let held_in_body = Mutex::new(None);
        let options = self.options();
        let look = || {
            let held = model.held(&key);
            *held_in_body.lock().unwrap() = Some(held.iter().any(|held| self.is_ours(held, pid)));
        };
        let Called { told, left } =
            self.client
                .call(self.call, session, &key, options, self.dropped_at, look);

        self.check_told(&told, held_in_body.into_inner().unwrap());
        let requests = if let Some(mut session) = left {
            let requests = session.faults.requests() - first;
            // What is left of them must not hit the checks.
            session.faults = Default::default();
            self.check_session(&mut session, &told, &key, &before);
            requests
        } else {
            let left = shown(&model, &key, pid);
            assert!(
                left.is_empty(),
                "{self:?}: a pool has dropped a session that holds {left:?}"
            );
            1
        };
        assert!(requests < 60, "{self:?}: {requests} requests");
        if let (Some(others), None) = (others, self.others_leave_at) {
            others.release().unwrap_or_else(|error| {
                panic!("{self:?}: the other's lock was touched: {error:?}")
            });
        }
        (requests, told)
    }

    fn is_ours(&self, held: &Held, pid: i32) -> bool {
        held.pid == pid && held.granted && held.mode == self.mode
    }

    fn check_told(&self, told: &Told, held_in_body: Option<bool>) {
        // A lost reply or an ended session cannot be known before the next request.
        assert_ne!(
            held_in_body,
            Some(false),
            "{self:?}: the body ran without the lock"
        );
        match told {
            Told::Held | Told::Dropped | Told::BodyFailed => {
                assert!(held_in_body.is_some(), "{self:?}: {told:?} without a body")
            }
            Told::NotGranted => assert!(
                held_in_body.is_none(),
                "{self:?}: the body ran, but was not granted"
            ),
            Told::Failed(_) | Told::Panicked | Told::Abandoned => {}
        }
        if matches!(told, Told::Held | Told::Dropped | Told::BodyFailed) {
            let excluded = self.others == Others::Holder
                || (self.others == Others::Sharer && self.mode == LockMode::Exclusive);
            assert!(
                !excluded || self.others_leave_at.is_some(),
                "{self:?}: granted against a holder"
            );
        }
        if self.faults.is_empty() {
            assert!(
                !matches!(told, Told::Failed(_)),
                "{self:?}: {told:?} without a fault"
            );
        }
    }

    /// After the caller has ended a transaction of its own, the session holds what it held before, or it is gone.
    fn check_session(
        &self,
        session: &mut ModelSession,
        told: &Told,
        key: &LockKey,
        before: &[Held],
    ) {
        let model = session.model().clone();
        let pid = session.pid();
        if session.session_transaction_state() == TransactionState::broken() {
            let left = shown(&model, key, pid);
            assert!(
                left.is_empty(),
                "{self:?}: a condemned session holds {left:?}"
            );
            let refused = session
                .acquire_advisory_lock(key, LockOptions::no_wait())
                .map(drop)
                .unwrap_err();
            assert_eq!(
                refused.kind(),
                LockErrorKind::Database,
                "{self:?}: a condemned session is used again"
            );
            return;
        }
        if model.run(|server| server.written(pid)) == Err("08006") {
            assert!(
                !matches!(told, Told::Held | Told::NotGranted),
                "{self:?}: {told:?} on a session that is gone"
            );
            return;
        }
        if self.call.begins_by_hand() {
            if matches!(
                told,
                Told::NotGranted | Told::Failed(LockErrorKind::Deadlock)
            ) {
                let usable = model.run(|server| server.write(pid));
                assert_eq!(
                    usable,
                    Ok(()),
                    "{self:?}: {told:?} left the transaction unusable"
                );
            }
            let _ = session.session_rollback();
        }
        assert_eq!(
            session.session_transaction_state().depth(),
            0,
            "{self:?}: a transaction is left open"
        );
        let after = shown(&model, key, pid);
        assert_eq!(
            after, before,
            "{self:?}: {told:?} left the session with other locks than before"
        );
    }
}

/// What the server shows of a session.
fn shown(model: &Model, key: &LockKey, pid: i32) -> Vec<Held> {
    model
        .held(key)
        .into_iter()
        .filter(|held| held.pid == pid)
        .collect()
}
