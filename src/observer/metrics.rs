//! Observer that records to the crate [`metrics`](https://docs.rs/metrics): [`MetricsObserver`].

use std::time::Duration;

use metrics::{Label, Unit};

use super::instruments::{self, Attribute, Instrument, Sink, observe_with};
use super::{HoldEnd, LockObserver, ObservedLock, RequestEnd};

/// Observer that records to the recorder of the crate [`metrics`](https://docs.rs/metrics).
///
/// The page [`docs/metrics.md`](crate::guide::metrics) lists the instruments and their attributes,
/// with queries and alert rules.
///
/// # Examples
///
/// ```
/// use advisory_locking::observer::{MetricsObserver, observe};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // After the recorder of the program was installed, which then receives the descriptions.
/// observe(MetricsObserver::new())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MetricsObserver(());

impl MetricsObserver {
    /// Creates the observer, and describes its instruments to the recorder.
    #[must_use]
    pub fn new() -> Self {
        for instrument in Instrument::ALL {
            let (name, text) = (instrument.name(), instrument.description());
            match instrument {
                Instrument::AcquireDuration | Instrument::HeldDuration => {
                    metrics::describe_histogram!(name, Unit::Seconds, text);
                }
                Instrument::Waiting | Instrument::Held => metrics::describe_gauge!(name, text),
                Instrument::Lost | Instrument::Polls | Instrument::Overdue => {
                    metrics::describe_counter!(name, text);
                }
            }
        }
        Self(())
    }
}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

observe_with!(MetricsObserver);

impl Sink for MetricsObserver {
    fn record(&self, instrument: Instrument, seconds: f64, attributes: &[Attribute]) {
        metrics::histogram!(instrument.name(), labels(attributes)).record(seconds);
    }

    fn add(&self, instrument: Instrument, change: i32, attributes: &[Attribute]) {
        let (name, labels) = (instrument.name(), labels(attributes));
        match instrument {
            Instrument::Waiting | Instrument::Held => {
                metrics::gauge!(name, labels).increment(f64::from(change));
            }
            Instrument::Lost
            | Instrument::Polls
            | Instrument::Overdue
            | Instrument::AcquireDuration
            | Instrument::HeldDuration => {
                metrics::counter!(name, labels).increment(u64::from(change.unsigned_abs()));
            }
        }
    }
}

fn labels(attributes: &[Attribute]) -> Vec<Label> {
    let present = attributes.iter().filter(|(_, value)| !value.is_empty());
    present
        .map(|(name, value)| Label::from_static_parts(name, value))
        .collect()
}
