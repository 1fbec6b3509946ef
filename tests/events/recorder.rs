//! Subscriber of the process, which records the events of the crate with their fields.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, Once, PoisonError};

use advisory_locking::{LockKey, RawLockKey};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

/// Recorded event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) level: Level,
    pub(crate) target: String,
    fields: BTreeMap<String, String>,
}

impl Event {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub(crate) fn message(&self) -> &str {
        self.field("message").unwrap_or_default()
    }
}

impl Visit for Event {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields
            .insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.fields.insert(field.name().to_owned(), value);
    }
}

struct Recorder;

impl<S: Subscriber> Layer<S> for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        metadata.target().starts_with("advisory_locking")
    }

    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let mut recorded = Event {
            level: *event.metadata().level(),
            target: event.metadata().target().to_owned(),
            fields: BTreeMap::new(),
        };
        event.record(&mut recorded);
        let mut events = EVENTS.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(recorded);
    }
}

/// Starts to record, in all threads.
pub(crate) fn record() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(registry().with(Recorder)).unwrap();
    });
}

/// Returns the events of a key, in order. An error-level event names it in a text.
pub(crate) fn events_of(key: &LockKey) -> Vec<Event> {
    let id = match key.raw() {
        RawLockKey::Single(number) => number.to_string(),
        RawLockKey::Pair(first, second) => format!("{first},{second}"),
    };
    let name = key.to_string();
    let mut events = EVENTS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    events.retain(|event| {
        let error = event.field("error");
        event.field("lock.id") == Some(&id) || error.is_some_and(|text| text.contains(&name))
    });
    events
}
