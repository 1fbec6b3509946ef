//! Instruments of a lock manager, for the features `metrics` and `opentelemetry`.

#[cfg(feature = "opentelemetry")]
use std::sync::Arc;

#[cfg(feature = "opentelemetry")]
use opentelemetry::metrics::AsyncInstrument;

use super::snapshot::LockManagerSnapshot;

/// Instrument that is read from a snapshot.
struct Instrument {
    name: &'static str,
    description: &'static str,
    read: fn(&LockManagerSnapshot) -> u64,
}

/// Attribute with the name of the lock manager.
const MANAGER: &str = "lock.manager";

const GAUGES: [Instrument; 4] = [
    Instrument {
        name: "advisory_lock.manager.keys",
        description: "Keys in use",
        read: |snapshot| number(snapshot.keys.len()),
    },
    Instrument {
        name: "advisory_lock.manager.holders",
        description: "Callers that hold a lock",
        read: |snapshot| number(snapshot.holders()),
    },
    Instrument {
        name: "advisory_lock.manager.waiters",
        description: "Callers that wait for a lock",
        read: |snapshot| number(snapshot.waiters()),
    },
    Instrument {
        name: "advisory_lock.manager.sessions",
        description: "Sessions of the lock manager",
        read: |snapshot| number(snapshot.sessions.len()),
    },
];

const COUNTERS: [Instrument; 3] = [
    Instrument {
        name: "advisory_lock.manager.batches",
        description: "Statements of the lock manager",
        read: |snapshot| snapshot.batches,
    },
    Instrument {
        name: "advisory_lock.manager.hand_offs",
        description: "Grants without the server",
        read: |snapshot| snapshot.hand_offs,
    },
    Instrument {
        name: "advisory_lock.manager.lost_sessions",
        description: "Sessions that were lost",
        read: |snapshot| snapshot.lost_sessions,
    },
];

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(feature = "metrics")]
impl LockManagerSnapshot {
    /// Records the snapshot to the recorder of the crate [`metrics`](https://docs.rs/metrics).
    ///
    /// `manager` is the value of the attribute `lock.manager`. Call it at each scrape, or every few
    /// seconds. The page [`docs/metrics.md`](crate::guide::metrics) lists the instruments.
    pub fn record_metrics(&self, manager: &'static str) {
        for gauge in GAUGES {
            metrics::describe_gauge!(gauge.name, gauge.description);
            let value = (gauge.read)(self);
            // Exact up to 2^53.
            metrics::gauge!(gauge.name, MANAGER => manager).set(value as f64);
        }
        for counter in COUNTERS {
            metrics::describe_counter!(counter.name, counter.description);
            let value = (counter.read)(self);
            metrics::counter!(counter.name, MANAGER => manager).absolute(value);
        }
    }
}

#[cfg(feature = "opentelemetry")]
impl super::LockManager {
    /// Registers observable instruments, which read the lock manager at each collection.
    ///
    /// `manager` is the value of the attribute `lock.manager`. The instruments do not keep the lock
    /// manager open, and report nothing after its end. The page
    /// [`docs/metrics.md`](crate::guide::metrics) lists them.
    pub fn register_metrics(&self, meter: &opentelemetry::metrics::Meter, manager: &'static str) {
        let attribute = opentelemetry::KeyValue::new(MANAGER, manager);
        let callback = |read: fn(&LockManagerSnapshot) -> u64| {
            let (shared, attribute) = (Arc::downgrade(&self.handle.shared), attribute.clone());
            move |instrument: &dyn AsyncInstrument<u64>| {
                if let Some(shared) = shared.upgrade() {
                    instrument.observe(read(&shared.snapshot()), std::slice::from_ref(&attribute));
                }
            }
        };
        // The meter keeps the callbacks.
        for gauge in GAUGES {
            let builder = meter.u64_observable_gauge(gauge.name);
            let builder = builder.with_description(gauge.description);
            let _registered = builder.with_callback(callback(gauge.read)).build();
        }
        for counter in COUNTERS {
            let builder = meter.u64_observable_counter(counter.name);
            let builder = builder.with_description(counter.description);
            let _registered = builder.with_callback(callback(counter.read)).build();
        }
    }
}
