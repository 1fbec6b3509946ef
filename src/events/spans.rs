//! Spans around a request and around a body: [`LockSpan`].
//!
//! # Implementation details
//!
//! A span exists only if a subscriber accepts level debug; otherwise it costs two relaxed loads. It
//! is entered at each poll of an async call. The subscriber's panic at an enter, an exit or the end
//! of the span is caught. Consequence for users: a trace shows the wait for a lock, and what ran
//! under it.

#[cfg(feature = "_async")]
use std::future::poll_fn;
#[cfg(feature = "_async")]
use std::pin::Pin;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

use super::{Id, TARGET};
use crate::observer::{ObservedLock, contained};

/// Span of a request or of a body. `None`: no subscriber accepts it.
#[derive(Debug, Default)]
pub(crate) struct LockSpan(Option<Span>);

macro_rules! lock_span {
    ($name:literal, $lock:expr $(, $($extra:tt)*)?) => {{
        let lock: &ObservedLock = $lock;
        let mut span = None;
        if tracing::dispatcher::has_been_set() && LevelFilter::current() >= Level::DEBUG {
            contained(|| {
                let created = tracing::span!(
                    target: TARGET,
                    Level::DEBUG,
                    $name,
                    lock.key = lock.key.text(),
                    lock.id = %Id(lock.key.raw()),
                    lock.label = (!lock.label.is_empty()).then_some(lock.label),
                    lock.scope = lock.scope.name(),
                    lock.mode = lock.mode.name(),
                    lock.request = lock.request,
                    db.system.name = lock.db_system_name(),
                    $($($extra)*)?
                );
                span = Some(created);
            });
        }
        LockSpan(span)
    }};
}

impl LockSpan {
    /// Returns the span of a request.
    pub(super) fn acquire(lock: &ObservedLock) -> Self {
        lock_span!("advisory_lock.acquire", lock, otel.kind = "client")
    }

    /// Returns the span of a body.
    pub(super) fn held(lock: &ObservedLock) -> Self {
        lock_span!("advisory_lock.held", lock)
    }

    /// Runs a call inside the span.
    pub(crate) fn in_scope<T>(&self, call: impl FnOnce() -> T) -> T {
        let mut entered = Entered(None);
        if let Some(span) = &self.0 {
            contained(|| entered.0 = Some(span.enter()));
        }
        call()
    }

    /// Polls a future inside the span until it is ready.
    #[cfg(feature = "_async")]
    pub(crate) async fn run<F: Future>(&self, mut future: Pin<&mut F>) -> F::Output {
        poll_fn(|context| self.in_scope(|| future.as_mut().poll(context))).await
    }
}

impl Drop for LockSpan {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            contained(|| drop(span));
        }
    }
}

struct Entered<'s>(Option<tracing::span::Entered<'s>>);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(entered) = self.0.take() {
            contained(|| drop(entered));
        }
    }
}
