//! Instruments of the features `metrics` and `opentelemetry`, and their attributes.
//!
//! # Implementation details
//!
//! [`Sink`] is the port of a metrics library. [`record_requested`], [`record_request_ended`] and
//! [`record_hold_ended`] select the instruments and attributes for both libraries. Every value of
//! an attribute is a text of the program or of this crate, so the number of series is bounded.
//! Consequence for users: a key never is an attribute.

use super::{HoldEnd, HoldOutcome, ObservedLock, RequestEnd, RequestOutcome, WaitStrategy};

/// Instrument of requests and holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Instrument {
    AcquireDuration,
    HeldDuration,
    Waiting,
    Held,
    Lost,
    Polls,
    Overdue,
}

impl Instrument {
    #[cfg(feature = "metrics")]
    pub(super) const ALL: [Self; 7] = [
        Self::AcquireDuration,
        Self::HeldDuration,
        Self::Waiting,
        Self::Held,
        Self::Lost,
        Self::Polls,
        Self::Overdue,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AcquireDuration => "advisory_lock.acquire.duration",
            Self::HeldDuration => "advisory_lock.held.duration",
            Self::Waiting => "advisory_lock.waiting",
            Self::Held => "advisory_lock.held",
            Self::Lost => "advisory_lock.lost",
            Self::Polls => "advisory_lock.polls",
            Self::Overdue => "advisory_lock.overdue",
        }
    }

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::AcquireDuration => "Time from a request for a lock to its outcome",
            Self::HeldDuration => "Time from a grant to the end of the lock",
            Self::Waiting => "Requests that have no outcome yet",
            Self::Held => "Locks that are held",
            Self::Lost => "Locks that were lost before their release",
            Self::Polls => "Pauses between two attempts of one request",
            Self::Overdue => "Locks that were held for longer than their warning time",
        }
    }
}

/// Attribute of a measurement. An empty value is none.
pub(super) type Attribute = (&'static str, &'static str);

/// Port of a metrics library.
pub(super) trait Sink {
    /// Records a duration in seconds.
    fn record(&self, instrument: Instrument, seconds: f64, attributes: &[Attribute]);

    /// Adds to a counter, or to an up-down counter.
    fn add(&self, instrument: Instrument, change: i32, attributes: &[Attribute]);
}

/// Attributes of the up-down counters. They are the same at each change of one request.
const fn level_of(lock: &ObservedLock) -> [Attribute; 2] {
    [("lock.label", lock.label), ("lock.mode", lock.mode.name())]
}

pub(super) fn record_requested(sink: &impl Sink, lock: &ObservedLock) {
    sink.add(Instrument::Waiting, 1, &level_of(lock));
}

pub(super) fn record_request_ended(sink: &impl Sink, lock: &ObservedLock, end: &RequestEnd) {
    sink.add(Instrument::Waiting, -1, &level_of(lock));
    if end.outcome == RequestOutcome::Granted {
        sink.add(Instrument::Held, 1, &level_of(lock));
    }
    if end.polls > 0 {
        let polls = i32::try_from(end.polls).unwrap_or(i32::MAX);
        sink.add(Instrument::Polls, polls, &[("lock.label", lock.label)]);
    }
    let contended = if end.contended { "true" } else { "false" };
    let attributes = [
        ("lock.label", lock.label),
        ("lock.outcome", end.outcome.name()),
        ("lock.mode", lock.mode.name()),
        ("lock.scope", lock.scope.name()),
        (
            "lock.strategy",
            lock.strategy.map_or("none", WaitStrategy::name),
        ),
        ("lock.contended", contended),
        ("db.system.name", lock.db_system_name().unwrap_or_default()),
        ("error.type", end.error_kind.map_or("", |kind| kind.name())),
    ];
    let seconds = end.waited.as_secs_f64();
    sink.record(Instrument::AcquireDuration, seconds, &attributes);
}

pub(super) fn record_hold_ended(sink: &impl Sink, lock: &ObservedLock, end: &HoldEnd) {
    sink.add(Instrument::Held, -1, &level_of(lock));
    let error = end.error_kind.map_or("", |kind| kind.name());
    if end.outcome == HoldOutcome::Lost {
        let attributes = [("lock.label", lock.label), ("error.type", error)];
        sink.add(Instrument::Lost, 1, &attributes);
    }
    // Its time is that of the call, not that of the lock.
    if end.outcome == HoldOutcome::Unobserved {
        return;
    }
    let attributes = [
        ("lock.label", lock.label),
        ("lock.outcome", end.outcome.name()),
        ("lock.mode", lock.mode.name()),
        ("lock.scope", lock.scope.name()),
        ("db.system.name", lock.db_system_name().unwrap_or_default()),
    ];
    let seconds = end.held.as_secs_f64();
    sink.record(Instrument::HeldDuration, seconds, &attributes);
}

pub(super) fn record_overdue(sink: &impl Sink, lock: &ObservedLock) {
    sink.add(Instrument::Overdue, 1, &[("lock.label", lock.label)]);
}

/// Implements the observer with a [`Sink`].
macro_rules! observe_with {
    ($observer:ty) => {
        impl LockObserver for $observer {
            fn requested(&self, lock: &ObservedLock) {
                instruments::record_requested(self, lock);
            }

            fn request_ended(&self, lock: &ObservedLock, end: &RequestEnd) {
                instruments::record_request_ended(self, lock, end);
            }

            fn hold_ended(&self, lock: &ObservedLock, end: &HoldEnd) {
                instruments::record_hold_ended(self, lock, end);
            }

            fn overdue(&self, lock: &ObservedLock, _held: Duration) {
                instruments::record_overdue(self, lock);
            }
        }
    };
}

pub(super) use observe_with;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::backend::Backend;
    use crate::error::LockErrorKind;
    use crate::key::LockKey;
    use crate::lock_mode::LockMode;
    use crate::options::LockScope;

    /// Records the instruments with their changes, and seconds as a change.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<(Instrument, f64, String)>>);

    impl Recorder {
        fn push(&self, instrument: Instrument, change: f64, attributes: &[Attribute]) {
            let present = attributes.iter().filter(|(_, value)| !value.is_empty());
            let texts: Vec<_> = present
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let mut measured = self.0.lock().unwrap();
            measured.push((instrument, change, texts.join(" ")));
        }

        #[track_caller]
        fn assert(self, expected: &[(Instrument, f64, &str)]) {
            let measured = self.0.into_inner().unwrap();
            let measured: Vec<_> = measured
                .iter()
                .map(|(instrument, change, attributes)| (*instrument, *change, &**attributes))
                .collect();
            assert_eq!(measured, expected);
        }
    }

    impl Sink for Recorder {
        fn record(&self, instrument: Instrument, seconds: f64, attributes: &[Attribute]) {
            self.push(instrument, seconds, attributes);
        }

        fn add(&self, instrument: Instrument, change: i32, attributes: &[Attribute]) {
            self.push(instrument, change.into(), attributes);
        }
    }

    fn lock() -> ObservedLock {
        ObservedLock {
            key: LockKey::from("instruments"),
            label: "report",
            scope: LockScope::Transaction,
            mode: LockMode::Shared,
            strategy: Some(WaitStrategy::Poll),
            backend: Some(Backend::Postgres),
            pid: None,
            request: 1,
        }
    }

    #[test]
    fn each_pause_is_counted() {
        let recorder = Recorder::default();
        let end = RequestEnd {
            outcome: RequestOutcome::TimedOut,
            waited: Duration::from_secs(2),
            contended: true,
            polls: 3,
            error_kind: None,
        };
        record_request_ended(&recorder, &lock(), &end);
        let level = "lock.label=report lock.mode=shared";
        recorder.assert(&[
            (Instrument::Waiting, -1.0, level),
            (Instrument::Polls, 3.0, "lock.label=report"),
            (
                Instrument::AcquireDuration,
                2.0,
                "lock.label=report lock.outcome=timed_out lock.mode=shared lock.scope=transaction \
                 lock.strategy=poll lock.contended=true db.system.name=postgresql",
            ),
        ]);
    }

    /// The observer does not see the end of a lock in a transaction of the caller.
    #[test]
    fn unobserved_hold_has_no_duration() {
        let recorder = Recorder::default();
        let held = Duration::from_secs(2);
        let end = |outcome, error_kind| HoldEnd {
            outcome,
            held,
            error_kind,
        };
        record_hold_ended(&recorder, &lock(), &end(HoldOutcome::Unobserved, None));
        let lost = end(HoldOutcome::Lost, Some(LockErrorKind::NotHeld));
        record_hold_ended(&recorder, &lock(), &lost);
        let level = "lock.label=report lock.mode=shared";
        recorder.assert(&[
            (Instrument::Held, -1.0, level),
            (Instrument::Held, -1.0, level),
            (
                Instrument::Lost,
                1.0,
                "lock.label=report error.type=not_held",
            ),
            (
                Instrument::HeldDuration,
                2.0,
                "lock.label=report lock.outcome=lost lock.mode=shared lock.scope=transaction \
                 db.system.name=postgresql",
            ),
        ]);
    }
}
