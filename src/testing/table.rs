//! Who holds what, who queues for it, and what is to go wrong. Pure bookkeeping: nothing waits here.

mod conflicts;

use std::task::Waker;

use super::event::{Event, EventKind};
use super::fault::{Fault, server_error};
use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::options::LockMode;
use crate::options::LockScope;
use crate::session::{LockReply, SessionError};

/// Who holds or wants a lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// The session whose connection is at this address.
    TestSession(usize),
    /// A session that is not the test's, by the number of its lock. It excludes everybody.
    OtherSession(i32),
}

impl Owner {
    pub(super) fn session<S: ?Sized>(session: &mut S) -> Self {
        Self::TestSession(std::ptr::from_mut(session).cast::<()>().addr())
    }
}

/// EventKind a call wants.
#[derive(Clone, Debug)]
pub(super) struct LockRequest {
    /// Different for every call; a session's process id to the protocol.
    pub(super) number: i32,
    pub(super) owner: Owner,
    pub(super) key: LockKey,
    pub(super) mode: LockMode,
    pub(super) scope: LockScope,
    /// Whether it will be told when the lock is given back.
    pub(super) sees_the_end: bool,
}

impl LockRequest {
    fn event(&self, kind: EventKind) -> Event {
        Event::new(kind, self.key.clone(), self.mode, self.scope)
    }
}

#[derive(Debug)]
struct Held {
    by: LockRequest,
    fault: Option<Fault>,
}

#[derive(Debug)]
struct Waiting {
    by: LockRequest,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Whether sessions of the test exclude each other.
    excludes: bool,
    last_number: i32,
    held: Vec<Held>,
    queue: Vec<Waiting>,
    faults: Vec<(LockKey, Fault)>,
    contended: Vec<LockKey>,
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

    /// The first planned fault of this key that is request, used up.
    fn take_fault<T>(&mut self, key: &LockKey, request: impl Fn(Fault) -> Option<T>) -> Option<T> {
        let (index, found) =
            self.faults
                .iter()
                .enumerate()
                .find_map(|(index, (planned, fault))| {
                    (planned == key)
                        .then(|| request(*fault))?
                        .map(|found| (index, found))
                })?;
        self.faults.remove(index);
        Some(found)
    }

    pub(super) fn fails_checkout(&mut self, key: &LockKey) -> Option<SessionError> {
        self.take_fault(key, |fault| {
            (fault == Fault::Pool)
                .then(|| SessionError::new("the test's locks: the pool gives no connection"))
        })
    }

    /// A statement that does not wait.
    pub(super) fn try_acquire(&mut self, request: &LockRequest) -> Result<bool, SessionError> {
        if let Some(error) = self.take_fault(&request.key, Fault::acquire_error) {
            return Err(error);
        }
        let holds = self.holds(request);
        if self.excludes && !request.sees_the_end && !holds {
            return Err(server_error(
                "0A000",
                "nobody sees the end of a transaction that the crate did not begin, so exclusion needs \
                 with_advisory_xact_lock outside a transaction",
            ));
        }
        let in_deadlock = self
            .faults
            .iter()
            .any(|(key, fault)| *key == request.key && *fault == Fault::Deadlock);
        let ahead = self.queue.len();
        if in_deadlock || self.is_blocked(request, ahead) {
            self.contended.push(request.key.clone());
            return Ok(false);
        }
        self.grant(request);
        Ok(true)
    }

    /// Joins the queue, unless that is a deadlock.
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

    /// Grants the lock to one who queues for it, if it is its turn. Notes whom to wake otherwise.
    pub(super) fn try_grant_queued(
        &mut self,
        request: &LockRequest,
        waker: Option<&Waker>,
    ) -> bool {
        let Some(position) = self.queue_position(request) else {
            return false;
        };
        if self.is_blocked(request, position) {
            if let (Some(waiting), Some(waker)) = (self.queue.get_mut(position), waker) {
                waiting.waker = Some(waker.clone());
            }
            return false;
        }
        self.queue.remove(position);
        self.grant(request);
        true
    }

    pub(super) fn remove_from_queue(&mut self, request: &LockRequest) {
        if let Some(position) = self.queue_position(request) {
            self.queue.remove(position);
        }
    }

    /// Those who queue, to be woken when something has changed.
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
                sees_the_end: true,
            },
            fault: None,
        });
        number
    }

    /// EventKind a release answers. The lock is gone afterwards, whatever that is.
    pub(super) fn release(&mut self, request: &LockRequest) -> Result<LockReply, SessionError> {
        let answered = |answer, pid| LockReply {
            answer,
            pid,
            transaction_began: 0,
        };
        let Some(held) = self.remove(request.number) else {
            return Ok(answered(Some(false), request.number));
        };
        match held.fault {
            None => {
                self.record(request, EventKind::Released);
                Ok(answered(Some(true), request.number))
            }
            Some(Fault::NotHeld) => Ok(answered(Some(false), request.number)),
            Some(Fault::SessionChanged) => Ok(answered(None, self.next_number())),
            Some(_) => Err(session_ended()),
        }
    }

    /// A release has failed, for whatever reason; it has made sure that nothing is held.
    pub(super) fn not_released(&mut self, request: &LockRequest, kind: LockErrorKind) {
        let _ = self.remove(request.number);
        self.record(request, EventKind::NotReleased(kind));
    }

    /// The holder is gone, without a word or after one.
    pub(super) fn on_hold_dropped(&mut self, request: &LockRequest) {
        let Some(held) = self.remove(request.number) else {
            return;
        };
        let kind = if held.is_lost() {
            EventKind::NotReleased(LockErrorKind::Lost)
        } else {
            EventKind::Released
        };
        self.record(request, kind);
    }

    pub(super) fn before_commit(&self, request: &LockRequest) -> Result<(), SessionError> {
        let lost = self
            .held
            .iter()
            .any(|held| held.by.number == request.number && held.fault == Some(Fault::Lost));
        if lost { Err(session_ended()) } else { Ok(()) }
    }

    /// Ends the sessions of the test that hold the lock. Returns how many locks were lost.
    pub(super) fn terminate_holders(&mut self, key: &LockKey) -> usize {
        let mut lost = 0;
        for held in &mut self.held {
            if held.by.key == *key && matches!(held.by.owner, Owner::TestSession(_)) {
                held.fault = Some(Fault::Lost);
                lost += 1;
            }
        }
        lost
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
        self.contended
            .iter()
            .filter(|refused| *refused == key)
            .count()
    }

    fn grant(&mut self, request: &LockRequest) {
        self.record(request, EventKind::Acquired);
        if request.sees_the_end {
            let fault = self.take_fault(&request.key, |fault| {
                fault.applies_to_holder(request.scope).then_some(fault)
            });
            self.held.push(Held {
                by: request.clone(),
                fault,
            });
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
    /// A session that ended holds nothing, whatever its holder thinks.
    fn is_lost(&self) -> bool {
        self.fault == Some(Fault::Lost)
    }
}

fn session_ended() -> SessionError {
    server_error("57P01", "the session was ended")
}

#[cfg(test)]
mod tests;
