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

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
    use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};

    use super::*;

    const DURATIONS: [Instrument; 2] = [Instrument::AcquireDuration, Instrument::HeldDuration];

    const LEVELS_AND_COUNTERS: [Instrument; 5] = [
        Instrument::Waiting,
        Instrument::Held,
        Instrument::Lost,
        Instrument::Polls,
        Instrument::Overdue,
    ];

    /// Returns the values of each point with their attributes.
    fn points<T: Copy>(data: &MetricData<T>, number: impl Fn(T) -> f64) -> Vec<(String, f64)> {
        let point = |attributes: Vec<&KeyValue>, value| {
            let texts = attributes
                .iter()
                .map(|it| format!("{}={}", it.key, it.value));
            (texts.collect::<Vec<_>>().join(","), number(value))
        };
        match data {
            MetricData::Sum(sum) => sum
                .data_points()
                .map(|it| point(it.attributes().collect(), it.value()))
                .collect(),
            MetricData::Histogram(histogram) => histogram
                .data_points()
                .map(|it| point(it.attributes().collect(), it.sum()))
                .collect(),
            MetricData::Gauge(_) | MetricData::ExponentialHistogram(_) => Vec::new(),
        }
    }

    #[test]
    fn each_measurement_has_its_instrument_unit_and_attributes() {
        let exporter = InMemoryMetricExporter::default();
        let provider = SdkMeterProvider::builder()
            .with_periodic_exporter(exporter.clone())
            .build();
        let observer = OpenTelemetryObserver::new(&provider.meter("unit test"));
        // The label is the name of the instrument.
        let attributes = |it: Instrument| [("lock.label", it.name()), ("error.type", "")];
        for instrument in DURATIONS {
            observer.record(instrument, 2.0, &attributes(instrument));
        }
        for instrument in LEVELS_AND_COUNTERS {
            observer.add(instrument, 3, &attributes(instrument));
        }
        provider.force_flush().unwrap();
        let mut found = Vec::new();
        for resource in exporter.get_finished_metrics().unwrap() {
            for metric in resource.scope_metrics().flat_map(|scope| scope.metrics()) {
                let measured = match metric.data() {
                    AggregatedMetrics::F64(data) => {
                        if let MetricData::Histogram(histogram) = data {
                            let long_hold = LONG_HOLD_SECONDS.iter();
                            let long_hold = long_hold.filter(|_| metric.name().contains("held"));
                            let bounds = WAIT_SECONDS.iter().chain(long_hold).copied();
                            assert!(
                                histogram
                                    .data_points()
                                    .all(|it| it.bounds().eq(bounds.clone()))
                            );
                        }
                        points(data, |value| value)
                    }
                    AggregatedMetrics::U64(data) => points(data, |value| value as f64),
                    AggregatedMetrics::I64(data) => points(data, |value| value as f64),
                };
                let (name, unit) = (metric.name().to_owned(), metric.unit().to_owned());
                found.push((name, unit, metric.description().to_owned(), measured));
            }
        }
        found.sort_by(|first, second| first.0.cmp(&second.0));
        let mut expected = [
            (Instrument::AcquireDuration, "s", 2.0),
            (Instrument::HeldDuration, "s", 2.0),
            (Instrument::Waiting, "{request}", 3.0),
            (Instrument::Held, "{lock}", 3.0),
            (Instrument::Lost, "{lock}", 3.0),
            (Instrument::Polls, "{poll}", 3.0),
            (Instrument::Overdue, "{lock}", 3.0),
        ]
        .map(|(instrument, unit, value)| {
            let (name, description) = (instrument.name(), instrument.description());
            let measured = vec![(format!("lock.label={name}"), value)];
            (
                name.to_owned(),
                unit.to_owned(),
                description.to_owned(),
                measured,
            )
        });
        expected.sort_by(|first, second| first.0.cmp(&second.0));
        assert_eq!(found, expected);
    }
}
