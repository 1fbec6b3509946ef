//! Events from another thread than that of their call: [`Notice`].
//!
//! # Implementation details
//!
//! The end of a call waits for an event that another thread sends right now, so that it follows the
//! event. It does not wait on the thread that sends the event: a subscriber may release the lock
//! there.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use super::{LockEvent, Subject};

/// Event that another thread sends: once, and not after the end of the request or hold.
#[derive(Debug)]
pub(crate) struct Notice {
    subject: Subject,
    state: Mutex<State>,
    /// Wakes the end of the call after the event.
    sent: Condvar,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    Sending(ThreadId),
    /// The event was sent, or the request or hold has ended.
    Done,
}

impl Notice {
    pub(super) fn new(subject: &Subject) -> Self {
        Self {
            subject: subject.clone(),
            state: Mutex::new(State::Open),
            sent: Condvar::new(),
        }
    }

    /// Reports that the request waits.
    #[cfg(feature = "lock-manager")]
    pub(crate) fn waits(&self) {
        self.send(LockEvent::Waiting);
    }

    pub(super) fn send(&self, event: LockEvent) {
        let mut state = self.state();
        if *state == State::Open {
            *state = State::Sending(thread::current().id());
            drop(state);
            self.subject.emit(event, None);
            *self.state() = State::Done;
            self.sent.notify_all();
        }
    }

    /// Ends the request or hold, once. Returns `true` if the event was sent.
    pub(super) fn close(&self) -> bool {
        let this = thread::current().id();
        let is_sending = |state: &mut State| matches!(state, State::Sending(id) if *id != this);
        let state = self.sent.wait_while(self.state(), is_sending);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *state, State::Done) != State::Open
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The value is valid after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
