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
