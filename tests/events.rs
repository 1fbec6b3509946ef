//! Log events, and a log sink that panics.
//!
//! A separate program that runs one test at a time. tracing caches whether an event is enabled. If
//! a thread without a subscriber registers the event first, while another thread sets a
//! subscriber, the event stays disabled for both.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use advisory_locking::session::LockSession;
use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions};
use tracing_subscriber::fmt::MakeWriter;

use testkit::model::Model;

/// Collects lines. Panics at a line that contains `poison`.
#[derive(Clone, Default)]
struct Sink {
    lines: Arc<Mutex<Vec<u8>>>,
    poison: Option<&'static str>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        assert!(
            !self.poison.is_some_and(|poison| line.contains(poison)),
            "the sink's panic"
        );
        self.lines.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Sink {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn logging_to<T>(sink: Sink, act: impl FnOnce() -> T) -> T {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(sink)
        .finish();
    tracing::subscriber::with_default(subscriber, act)
}

#[test]
fn events_are_logged_with_the_key() {
    let (sink, model, key) = (Sink::default(), Model::default(), LockKey::from("logged"));
    logging_to(sink.clone(), || {
        let mut session = model.connect();
        session
            .with_advisory_lock(&key, LockOptions::no_wait(), |_| Ok::<_, LockError>(()))
            .unwrap();
    });
    let lines = String::from_utf8(sink.lines.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    for (line, event) in lines
        .iter()
        .zip(["requesting", "is granted", "is released"])
    {
        assert!(
            line.contains(event) && line.contains(&key.to_string()),
            "{line}"
        );
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
}

/// A transaction-level lock in the caller's transaction has no guard, but its grant is logged.
#[test]
fn granting_in_the_callers_transaction_is_logged() {
    let (sink, model, key) = (Sink::default(), Model::default(), LockKey::from("logged"));
    logging_to(sink.clone(), || {
        let mut session = model.connect();
        session.session_begin().unwrap();
        session
            .acquire_advisory_xact_lock(&key, LockOptions::no_wait())
            .unwrap();
        let again = session.try_acquire_advisory_xact_lock(&key, LockOptions::no_wait());
        assert!(again.unwrap());
    });
    let lines = String::from_utf8(sink.lines.lock().unwrap().clone()).unwrap();
    assert_eq!(lines.matches("is granted").count(), 2, "{lines}");
}

/// As `granting_in_the_callers_transaction_is_logged`, with an async session.
#[cfg(feature = "diesel-async-sqlite")]
#[test]
fn granting_in_the_callers_transaction_is_logged_async() {
    use advisory_locking::AsyncAdvisoryLocking;
    use advisory_locking::session::AsyncLockSession;
    use diesel_async::AsyncConnection;
    use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let sink = Sink::default();
    logging_to(sink.clone(), || {
        runtime.block_on(async {
            let url = ":memory:";
            let mut conn = SyncConnectionWrapper::<diesel::SqliteConnection>::establish(url)
                .await
                .unwrap();
            AsyncLockSession::session_begin(&mut conn).await.unwrap();
            let options = LockOptions::no_wait();
            conn.acquire_advisory_xact_lock("logged", options)
                .await
                .unwrap();
            let again = conn.try_acquire_advisory_xact_lock("logged", options);
            assert!(again.await.unwrap());
        });
    });
    let lines = String::from_utf8(sink.lines.lock().unwrap().clone()).unwrap();
    assert_eq!(lines.matches("is granted").count(), 2, "{lines}");
}

#[test]
fn a_sink_that_panics_has_no_effect() {
    for event in ["requesting", "is granted", "is released"] {
        let (model, key) = (Model::default(), LockKey::from("poisoned"));
        let mut session = model.connect();
        let sink = Sink {
            poison: Some(event),
            ..Sink::default()
        };
        let held = logging_to(sink, || {
            session.with_advisory_lock(&key, LockOptions::no_wait(), |session| {
                Ok::<_, LockError>(session.model().held(&key).len())
            })
        });
        assert_eq!(held.unwrap(), 1, "with a panic at {event:?}");
        assert_eq!(model.held(&key), [], "after a panic at {event:?}");
    }
}
