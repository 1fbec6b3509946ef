//! Clock of a test's waits.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Clock that measures the waits of simulated sessions. It runs until a test pauses it.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The time of the paused clock; `None` while it runs.
    paused_at: Mutex<Option<Instant>>,
}

impl Clock {
    pub(super) fn pause(&self) {
        self.change(|paused_at| {
            paused_at.get_or_insert_with(Instant::now);
        });
    }

    pub(super) fn resume(&self) {
        self.change(|paused_at| *paused_at = None);
    }

    pub(super) fn now(&self) -> Instant {
        self.change(|paused_at| paused_at.unwrap_or_else(Instant::now))
    }

    /// Advances a paused clock. Returns `false` if the clock runs.
    pub(super) fn advance(&self, pause: Duration) -> bool {
        self.change(|paused_at| {
            let advanced = paused_at.map(|time| time.checked_add(pause).unwrap_or(time));
            *paused_at = advanced;
            advanced.is_some()
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Option<Instant>) -> T) -> T {
        // The value is valid after a panic.
        change(
            &mut self
                .paused_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}
