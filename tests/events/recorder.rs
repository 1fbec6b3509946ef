//! Subscriber of the process, which records the events of the crate with their fields.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use advisory_locking::observer::{
    HoldEnd, HoldOutcome, LockObserver, ObservedLock, RequestEnd, RequestOutcome, observe,
};
use advisory_locking::{LockKey, RawLockKey};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::registry::LookupSpan;

static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());
static CALLS: Mutex<Vec<(RawLockKey, Call)>> = Mutex::new(Vec::new());

/// Recorded event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) level: Level,
    pub(crate) target: String,
    fields: BTreeMap<String, String>,
    /// Name of the span in which it was sent.
    pub(crate) span: Option<&'static str>,
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

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        metadata.target().starts_with("advisory_locking")
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut recorded = Event {
            level: *event.metadata().level(),
            target: event.metadata().target().to_owned(),
            fields: BTreeMap::new(),
            span: None,
        };
        event.record(&mut recorded);
        let span = context.lookup_current();
        recorded.span = span.map(|span| span.name());
        let mut events = EVENTS.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(recorded);
    }
}

/// Call of the observer.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Requested(ObservedLock),
    Waiting(ObservedLock),
    RequestEnded(ObservedLock, RequestEnd),
    HoldEnded(ObservedLock, HoldEnd),
    Overdue(ObservedLock),
}

impl Call {
    pub(crate) const fn lock(&self) -> &ObservedLock {
        match self {
            Self::Requested(lock)
            | Self::Waiting(lock)
            | Self::Overdue(lock)
            | Self::RequestEnded(lock, _)
            | Self::HoldEnded(lock, _) => lock,
        }
    }

    /// Returns the message of the log event with the same content. `None`: there is none.
    pub(crate) const fn message(&self) -> Option<&'static str> {
        Some(match self {
            Self::Requested(_) => "requesting an advisory lock",
            Self::Waiting(_) => "waiting for an advisory lock",
            Self::Overdue(_) => "an advisory lock is held for long",
            Self::RequestEnded(_, end) => match end.outcome {
                RequestOutcome::Granted => "an advisory lock is granted",
                RequestOutcome::HeldElsewhere => "an advisory lock is contended",
                RequestOutcome::TimedOut => "the limit of an advisory lock passed",
                RequestOutcome::Failed => "the request for an advisory lock failed",
                RequestOutcome::Dropped => "the request for an advisory lock was dropped",
                _ => return None,
            },
            Self::HoldEnded(_, end) => match end.outcome {
                HoldOutcome::Released => "an advisory lock is released",
                HoldOutcome::ReleaseQueued => "the release of an advisory lock is queued",
                HoldOutcome::Terminated => "the session of an advisory lock is being terminated",
                HoldOutcome::Lost => "an advisory lock was lost",
                HoldOutcome::NotReleased => "an advisory lock was not released",
                _ => return None,
            },
        })
    }
}

impl LockObserver for Recorder {
    fn requested(&self, lock: &ObservedLock) {
        record_call(Call::Requested(lock.clone()));
    }

    fn waiting(&self, lock: &ObservedLock) {
        record_call(Call::Waiting(lock.clone()));
    }

    fn request_ended(&self, lock: &ObservedLock, end: &RequestEnd) {
        record_call(Call::RequestEnded(lock.clone(), *end));
    }

    fn hold_ended(&self, lock: &ObservedLock, end: &HoldEnd) {
        record_call(Call::HoldEnded(lock.clone(), *end));
    }

    fn overdue(&self, lock: &ObservedLock, held: Duration) {
        assert!(!held.is_zero());
        record_call(Call::Overdue(lock.clone()));
    }
}

fn record_call(call: Call) {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = call.lock().key().raw();
    calls.push((key, call));
    drop(calls);
    // Every test passes although the observer panics.
    panic!("the observer's panic");
}

/// Returns the calls of the observer for a key, in order.
pub(crate) fn calls_of(key: &LockKey) -> Vec<Call> {
    let calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let of_key = calls.iter().filter(|(raw, _)| *raw == key.raw());
    of_key.map(|(_, call)| call.clone()).collect()
}

/// Starts to record, in all threads.
pub(crate) fn record() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(registry().with(Recorder)).unwrap();
        observe(Recorder).unwrap();
        // The panics of the observer are expected; their messages would hide others.
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<&str>();
            if text != Some(&"the observer's panic") {
                report(panic);
            }
        }));
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
