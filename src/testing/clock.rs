//! Clock of a test's waits.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Clock that measures the waits of simulated sessions. It runs until a test pauses it.
#[derive(Debug, Default)]
pub(super) struct Clock {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The time of the paused clock; `None` while it runs.
    paused_at: Option<Instant>,
    /// Time by which the running clock is ahead. It never runs backwards.
    ahead: Duration,
}

impl State {
    fn now(&self) -> Instant {
        let now = Instant::now();
        let running = now.checked_add(self.ahead).unwrap_or(now);
        self.paused_at.unwrap_or(running)
    }
}

impl Clock {
    pub(super) fn pause(&self) {
        self.change(|state| state.paused_at = Some(state.now()));
    }

    pub(super) fn resume(&self) {
        self.change(|state| {
            if let Some(paused_at) = state.paused_at.take() {
                state.ahead = paused_at.saturating_duration_since(Instant::now());
            }
        });
    }

    pub(super) fn now(&self) -> Instant {
        self.change(|state| state.now())
    }

    #[cfg(feature = "_async")]
    pub(super) fn is_paused(&self) -> bool {
        self.change(|state| state.paused_at.is_some())
    }

    /// Advances a paused clock. Returns `false` if the clock runs.
    pub(super) fn advance(&self, pause: Duration) -> bool {
        self.change(|state| {
            let advanced = state
                .paused_at
                .map(|time| time.checked_add(pause).unwrap_or(time));
            state.paused_at = advanced;
            advanced.is_some()
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // The value is valid after a panic.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
