//! Observer that records to OpenTelemetry's metrics API: [`OpenTelemetryObserver`].

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

use super::instruments::{self, Attribute, Instrument, Sink, observe_with};
use super::{HoldEnd, LockObserver, ObservedLock, RequestEnd};

/// Observer that records to instruments of an OpenTelemetry meter.
///
/// The page [`docs/metrics.md`](crate::guide::metrics) lists the instruments and their attributes,
/// with queries and alert rules.
///
/// # Examples
///
/// ```
/// use advisory_locking::observer::{OpenTelemetryObserver, observe};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // After the meter provider of the program was set.
/// let meter = opentelemetry::global::meter("advisory-locking");
/// observe(OpenTelemetryObserver::new(&meter))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OpenTelemetryObserver {
    acquire_duration: Histogram<f64>,
    held_duration: Histogram<f64>,
    waiting: UpDownCounter<i64>,
    held: UpDownCounter<i64>,
    lost: Counter<u64>,
    polls: Counter<u64>,
    overdue: Counter<u64>,
}

impl OpenTelemetryObserver {
    /// Creates the observer with its instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let histogram = |instrument: Instrument, boundaries: &[f64]| {
            let builder = meter.f64_histogram(instrument.name());
            let builder = builder.with_description(instrument.description());
            let builder = builder.with_boundaries(boundaries.to_vec());
            builder.with_unit("s").build()
        };
        let level = |instrument: Instrument, unit| {
            let builder = meter.i64_up_down_counter(instrument.name());
            let builder = builder.with_description(instrument.description());
            builder.with_unit(unit).build()
        };
        let counter = |instrument: Instrument, unit| {
            let builder = meter.u64_counter(instrument.name());
            let builder = builder.with_description(instrument.description());
            builder.with_unit(unit).build()
        };
        let held = [&WAIT_SECONDS[..], &LONG_HOLD_SECONDS].concat();
        Self {
            acquire_duration: histogram(Instrument::AcquireDuration, &WAIT_SECONDS),
            held_duration: histogram(Instrument::HeldDuration, &held),
            waiting: level(Instrument::Waiting, "{request}"),
            held: level(Instrument::Held, "{lock}"),
            lost: counter(Instrument::Lost, "{lock}"),
            polls: counter(Instrument::Polls, "{poll}"),
            overdue: counter(Instrument::Overdue, "{lock}"),
        }
    }
}

observe_with!(OpenTelemetryObserver);

/// Upper bounds of the buckets of a wait.
const WAIT_SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Further buckets of a hold, which may be that of a job.
const LONG_HOLD_SECONDS: [f64; 4] = [300.0, 900.0, 1800.0, 3600.0];

impl Sink for OpenTelemetryObserver {
    fn record(&self, instrument: Instrument, seconds: f64, attributes: &[Attribute]) {
        let histogram = match instrument {
            Instrument::HeldDuration => &self.held_duration,
            _ => &self.acquire_duration,
        };
        histogram.record(seconds, &key_values(attributes));
    }

    fn add(&self, instrument: Instrument, change: i32, attributes: &[Attribute]) {
        let attributes = key_values(attributes);
        let counter = match instrument {
            Instrument::Waiting => return self.waiting.add(i64::from(change), &attributes),
            Instrument::Held => return self.held.add(i64::from(change), &attributes),
            Instrument::Lost => &self.lost,
            Instrument::Overdue => &self.overdue,
            Instrument::Polls | Instrument::AcquireDuration | Instrument::HeldDuration => {
                &self.polls
            }
        };
        counter.add(u64::from(change.unsigned_abs()), &attributes);
    }
}

fn key_values(attributes: &[Attribute]) -> Vec<KeyValue> {
    let present = attributes.iter().filter(|(_, value)| !value.is_empty());
    present
        .map(|(name, value)| KeyValue::new(*name, *value))
        .collect()
}
