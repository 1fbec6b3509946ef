//! A subscriber that panics has no effect on a lock.

use std::io::{self, Write};

use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions};
use testkit::model::Model;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Writer that panics at a line which contains `poison`.
#[derive(Clone, Copy)]
struct Sink {
    poison: &'static str,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        assert!(!line.contains(self.poison), "the sink's panic");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Sink {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        *self
    }
}

#[test]
fn a_sink_that_panics_has_no_effect() {
    crate::recorder::record();
    let events = ["requesting", "is granted", "is released"];
    let spans = [": new", ": enter", ": exit", ": close"];
    for poison in events.into_iter().chain(spans) {
        let (model, key) = (Model::default(), LockKey::from("poisoned"));
        let mut session = model.connect();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_span_events(FmtSpan::FULL)
            .with_writer(Sink { poison })
            .finish();
        let held = tracing::subscriber::with_default(subscriber, || {
            session.with_advisory_lock(&key, LockOptions::no_wait(), |session| {
                Ok::<_, LockError>(session.model().held(&key).len())
            })
        });
        assert_eq!(held.unwrap(), 1, "with a panic at {poison:?}");
        assert_eq!(model.held(&key), [], "after a panic at {poison:?}");
    }
}
