//! Lock table of a test: holders, waiters, faults and events.
//!
//! # Implementation details
//!
//! Holders and the wait queue are two vectors in order of arrival. A waiter is granted the lock
//! when no conflicting holder and no conflicting earlier waiter remain. The table never blocks;
//! [`SharedLockTable`](super::shared_table::SharedLockTable) waits and wakes.

mod conflicts;

use std::collections::HashMap;
use std::task::Waker;

use super::event::{Event, EventKind};
use super::fault::{Fault, server_error};
use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::options::{LockMode, LockScope};
use crate::session::{LockReply, ServerSigns, SessionError};

/// Owner of a held lock or of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// Session of the test, by the address of its connection.
    TestSession(usize),
    /// Simulated session outside the test, by the number of its lock. It excludes all sessions.
    OtherSession(i32),
}

impl Owner {
    pub(super) fn session<S: ?Sized>(session: &S) -> Self {
        Self::TestSession(std::ptr::from_ref(session).cast::<()>().addr())
    }
}

/// Lock request of one call.
#[derive(Clone, Debug)]
pub(super) struct LockRequest {
    /// Unique number of the call; the protocol sees it as the process id.
    pub(super) number: i32,
    pub(super) owner: Owner,
    pub(super) key: LockKey,
    pub(super) mode: LockMode,
    pub(super) scope: LockScope,
    /// `true` if the table observes the release.
    pub(super) observes_release: bool,
}

impl LockRequest {
    fn event(&self, kind: EventKind) -> Event {
        Event::new(kind, self.key.clone(), self.mode, self.scope)
    }
}

struct Held {
    by: LockRequest,
    fault: Option<Fault>,
    on_lost: Option<LossHook>,
}

/// Code of a holder that runs when its lock is lost.
pub(super) type LossHook = Box<dyn Fn() + Send + Sync>;

struct Waiting {
    by: LockRequest,
    waker: Option<Waker>,
}

#[derive(Default)]
pub(super) struct Table {
    /// `true` if sessions of the test exclude each other.
    excludes: bool,
    last_number: i32,
    held: Vec<Held>,
    queue: Vec<Waiting>,
    faults: Vec<(LockKey, Fault)>,
    /// Number of attempts that found each lock contended.
    contended: HashMap<LockKey, usize>,
    events: Vec<Event>,
}

impl Table {
    pub(super) fn new(excludes: bool) -> Self {
        Self {
            excludes,
            ..Self::default()
        }
    }

    pub(super) const fn excludes(&self) -> bool {
        self.excludes
    }

    pub(super) const fn next_number(&mut self) -> i32 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }

    pub(super) fn record(&mut self, request: &LockRequest, kind: EventKind) {
        self.events.push(request.event(kind));
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn schedule_fault(&mut self, key: LockKey, fault: Fault) {
        self.faults.push((key, fault));
    }

    /// Removes and returns the first injected fault of this key that `select` accepts.
    fn take_fault<T>(&mut self, key: &LockKey, select: impl Fn(Fault) -> Option<T>) -> Option<T> {
        let (index, found) =
            self.faults
                .iter()
                .enumerate()
                .find_map(|(index, (planned, fault))| {
                    (planned == key)
                        .then(|| select(*fault))?
                        .map(|found| (index, found))
                })?;
        self.faults.remove(index);
        Some(found)
    }

    pub(super) fn fails_checkout(&mut self, key: &LockKey) -> Option<SessionError> {
        self.take_fault(key, |fault| {
            (fault == Fault::Pool)
                .then(|| SessionError::new("injected fault: the pool returned no connection"))
        })
    }

    /// Tries to acquire the lock without waiting.
    pub(super) fn try_acquire(&mut self, request: &LockRequest) -> Result<bool, SessionError> {
        self.check_session(request.owner)?;
        // A deadlock ends a wait, so the attempt before it finds the lock contended.
        let in_deadlock = self.first_of_request(&request.key, false) == Some(Fault::Deadlock);
        if !in_deadlock {
            if let Some(error) = self.take_fault(&request.key, Fault::acquire_error) {
                return Err(error);
            }
        }
        let holds = self.holds(request);
        if self.excludes && !request.observes_release && !holds {
            return Err(server_error(
                "0A000",
                "the end of a transaction that the crate did not begin is not observed, so \
                 exclusion needs with_advisory_xact_lock outside a transaction",
            ));
        }
        if in_deadlock || self.refuses_attempt(request) {
            self.found_contended(request);
            return Ok(false);
        }
        self.grant(request);
        Ok(true)
    }

    /// Takes an injected [`Fault::TimedOut`] of this key, which makes the lock contended.
    pub(super) fn take_time_out(&mut self, request: &LockRequest) -> bool {
        let times_out = self.times_out(&request.key);
        if times_out {
            let timed_out = |fault| (fault == Fault::TimedOut).then_some(());
            self.take_fault(&request.key, timed_out);
            self.found_contended(request);
        }
        times_out
    }

    /// Returns `true` if the limit of the next call for this key passes at once.
    pub(super) fn times_out(&self, key: &LockKey) -> bool {
        self.first_of_request(key, true) == Some(Fault::TimedOut)
    }

    /// Returns the first injected fault of this key that ends a request, with or without a limit.
    fn first_of_request(&self, key: &LockKey, has_limit: bool) -> Option<Fault> {
        let of_key = self.faults.iter().filter(|(planned, _)| planned == key);
        of_key.map(|(_, fault)| *fault).find(|fault| match fault {
            Fault::TimedOut => has_limit,
            Fault::Deadlock => true,
            _ => fault.acquire_error().is_some(),
        })
    }

    /// Appends the request to the wait queue. Fails if that closes a cycle of waits.
    pub(super) fn enqueue(&mut self, request: &LockRequest) -> Result<(), SessionError> {
        let planned = self.take_fault(&request.key, |fault| {
            (fault == Fault::Deadlock).then_some(())
        });
        if planned.is_some() || self.is_deadlock(request) {
            return Err(server_error("40P01", "deadlock detected"));
        }
        self.queue.push(Waiting {
            by: request.clone(),
            waker: None,
        });
        Ok(())
    }

    /// Grants the lock to a waiter if nothing blocks it. Otherwise stores its waker. Fails if the
    /// session of the waiter has ended.
    pub(super) fn try_grant_queued(
        &mut self,
        request: &LockRequest,
        waker: Option<&Waker>,
    ) -> Result<bool, SessionError> {
        self.check_session(request.owner)?;
        let Some(position) = self.queue_position(request) else {
            return Ok(false);
        };
        if self.queue_blockers(request, position).next().is_some() {
            if let (Some(waiting), Some(waker)) = (self.queue.get_mut(position), waker) {
                waiting.waker = Some(waker.clone());
            }
            return Ok(false);
        }
        self.queue.remove(position);
        self.grant(request);
        Ok(true)
    }

    pub(super) fn remove_from_queue(&mut self, request: &LockRequest) {
        if let Some(position) = self.queue_position(request) {
            self.queue.remove(position);
        }
    }

    /// Removes and returns the wakers of all waiters.
    pub(super) fn wakers(&mut self) -> Vec<Waker> {
        let wakers = self.queue.iter_mut().map(|waiting| waiting.waker.take());
        wakers.flatten().collect()
    }

    pub(super) fn hold_from_other_session(&mut self, key: LockKey, mode: LockMode) -> i32 {
        let number = self.next_number();
        self.held.push(Held {
            by: LockRequest {
                number,
                owner: Owner::OtherSession(number),
                key,
                mode,
                scope: LockScope::Session,
                observes_release: true,
            },
            fault: None,
            on_lost: None,
        });
        number
    }

    /// Releases the lock and returns the reply. The lock is not held afterwards.
    pub(super) fn release(&mut self, request: &LockRequest) -> Result<LockReply, SessionError> {
        let reply = |answer, pid| LockReply {
            answer,
            pid,
            transaction_began: 0,
            server_signs: ServerSigns::NONE,
        };
        let Some(held) = self.remove(request.number) else {
            return Ok(reply(Some(false), request.number));
        };
        match held.fault {
            None => {
                self.record(request, EventKind::Released);
                Ok(reply(Some(true), request.number))
            }
            Some(Fault::NotHeld) => Ok(reply(Some(false), request.number)),
            Some(Fault::SessionChanged) => Ok(reply(None, self.next_number())),
            Some(_) => Err(session_ended()),
        }
    }

    /// Records a failed release, after which the lock is not held.
    pub(super) fn not_released(&mut self, request: &LockRequest, kind: LockErrorKind) {
        // The failed release may have removed it.
        let _ = self.remove(request.number);
        self.record(request, EventKind::NotReleased(kind));
    }

    /// Releases the lock of a dropped grant.
    pub(super) fn on_grant_dropped(&mut self, request: &LockRequest) {
        let Some(held) = self.remove(request.number) else {
            return;
        };
        let kind = match held.fault {
            None => EventKind::Released,
            Some(Fault::NotHeld) => EventKind::NotReleased(LockErrorKind::NotHeld),
            Some(Fault::SessionChanged) => EventKind::NotReleased(LockErrorKind::SessionChanged),
            Some(_) => EventKind::NotReleased(LockErrorKind::Lost),
        };
        self.record(request, kind);
    }

    /// Terminates the sessions of the test that hold the lock. Returns the number of lost locks and
    /// the hooks to run.
    pub(super) fn terminate_holders(&mut self, key: &LockKey) -> (usize, Vec<LossHook>) {
        let of_test = |held: &&Held| matches!(held.by.owner, Owner::TestSession(_));
        let holders = self.held.iter().filter(of_test);
        let holders = holders.filter(|held| held.by.key == *key);
        let owners: Vec<_> = holders.map(|held| held.by.owner).collect();
        let (mut lost, mut hooks) = (0, Vec::new());
        for owner in owners {
            let (of_session, its_hooks) = self.end_session(owner);
            lost += of_session;
            hooks.extend(its_hooks);
        }
        (lost, hooks)
    }

    /// Ends a session, which loses all its locks. Returns their number and the hooks to run.
    pub(super) fn end_session(&mut self, owner: Owner) -> (usize, Vec<LossHook>) {
        let (mut lost, mut hooks) = (0, Vec::new());
        for held in self.held_by(owner).filter(|held| !held.is_lost()) {
            held.fault = Some(Fault::Lost);
            hooks.extend(held.on_lost.take());
            lost += 1;
        }
        (lost, hooks)
    }

    /// Fails if the session has ended and has not noticed it, because it still has a lost lock.
    pub(super) fn check_session(&self, owner: Owner) -> Result<(), SessionError> {
        let mut held = self.held.iter();
        if held.any(|held| held.by.owner == owner && held.is_lost()) {
            return Err(session_ended());
        }
        Ok(())
    }

    fn held_by(&mut self, owner: Owner) -> impl Iterator<Item = &mut Held> {
        self.held
            .iter_mut()
            .filter(move |held| held.by.owner == owner)
    }

    /// Sets the hook of a holder. Returns it if the lock is lost already.
    #[cfg(feature = "lock-manager")]
    pub(super) fn set_loss_hook(&mut self, number: i32, hook: LossHook) -> Option<LossHook> {
        let held = self.held.iter_mut().find(|held| held.by.number == number)?;
        if held.is_lost() {
            return Some(hook);
        }
        held.on_lost = Some(hook);
        None
    }

    /// Returns `true` if the session of the lock was terminated.
    pub(super) fn is_lost(&self, number: i32) -> bool {
        let mut held = self.held.iter();
        held.any(|held| held.by.number == number && held.is_lost())
    }

    pub(super) fn set_owner(&mut self, number: i32, owner: Owner) {
        for held in &mut self.held {
            if held.by.number == number {
                held.by.owner = owner;
            }
        }
    }

    pub(super) fn remove_other_session(&mut self, number: i32) {
        let _ = self.remove(number);
    }

    pub(super) fn is_held(&self, key: &LockKey) -> bool {
        self.held.iter().any(|held| {
            held.by.key == *key && !held.is_lost() && matches!(held.by.owner, Owner::TestSession(_))
        })
    }

    pub(super) fn contention_count(&self, key: &LockKey) -> usize {
        self.contended.get(key).copied().unwrap_or(0)
    }

    fn found_contended(&mut self, request: &LockRequest) {
        *self.contended.entry(request.key.clone()).or_default() += 1;
    }

    fn grant(&mut self, request: &LockRequest) {
        self.record(request, EventKind::Acquired);
        if request.observes_release {
            let fault = self.take_fault(&request.key, |fault| {
                fault.applies_to_holder(request.scope).then_some(fault)
            });
            self.held.push(Held {
                by: request.clone(),
                fault,
                on_lost: None,
            });
            if fault == Some(Fault::Lost) {
                // A session of a lock manager, which alone has a hook, has one lock only.
                self.held_by(request.owner)
                    .for_each(|held| held.fault = fault);
            }
        }
    }

    fn remove(&mut self, number: i32) -> Option<Held> {
        let index = self.held.iter().position(|held| held.by.number == number)?;
        Some(self.held.remove(index))
    }

    fn queue_position(&self, request: &LockRequest) -> Option<usize> {
        self.queue
            .iter()
            .position(|waiting| waiting.by.number == request.number)
    }
}

impl Held {
    /// A terminated session holds nothing.
    fn is_lost(&self) -> bool {
        self.fault == Some(Fault::Lost)
    }
}

pub(super) fn session_ended() -> SessionError {
    server_error("57P01", "the session was terminated")
}

#[cfg(test)]
mod tests;
