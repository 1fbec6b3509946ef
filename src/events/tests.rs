use std::time::Duration;
#[cfg(feature = "lock-manager")]
use std::{
    sync::{Mutex, mpsc},
    thread,
    time::Instant,
};

use super::millis;
#[cfg(feature = "lock-manager")]
use super::{GrantRecord, RequestRecord};
#[cfg(feature = "lock-manager")]
use crate::error::{LockError, LockErrorKind};
#[cfg(feature = "lock-manager")]
use crate::observer::{HoldEnd, LockObserver, ObservedLock, RequestEnd};
#[cfg(feature = "lock-manager")]
use crate::options::{LockOptions, LockScope};

#[test]
fn durations_are_logged_in_whole_milliseconds() {
    assert_eq!(millis(Duration::from_micros(2_999)), 2);
    assert_eq!(millis(Duration::MAX), u64::MAX);
}

#[cfg(feature = "lock-manager")]
#[test]
fn subscriber_of_debug_events_is_noticed() {
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
    let subscriber = subscriber.with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(subscriber, || assert!(super::is_logged()));
}

/// Keeps the thread of an event until the call is about to end.
#[cfg(feature = "lock-manager")]
struct SlowObserver {
    calls: Mutex<Vec<&'static str>>,
    begun: mpsc::SyncSender<()>,
    ends: Mutex<mpsc::Receiver<()>>,
}

#[cfg(feature = "lock-manager")]
impl SlowObserver {
    /// Returns an observer, the begin of its event, and the sender of the end.
    fn leaked() -> (&'static Self, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((begun, has_begun), (ending, ends)) = (mpsc::sync_channel(1), mpsc::channel());
        let observer = Box::leak(Box::new(Self {
            calls: Mutex::default(),
            begun,
            ends: Mutex::new(ends),
        }));
        (observer, has_begun, ending)
    }

    fn record(&'static self, options: &LockOptions) -> RequestRecord {
        let scope = LockScope::Session;
        let mut record = RequestRecord::new(&"slow".into(), options, scope, None, Instant::now());
        record.observe_with(self);
        record
    }

    fn call_slowly(&self, name: &'static str) {
        self.begun.send(()).unwrap();
        self.ends.lock().unwrap().recv().unwrap();
        // The end of the call has this time to overtake.
        thread::sleep(Duration::from_millis(50));
        self.call(name);
    }

    fn call(&self, name: &'static str) {
        self.calls.lock().unwrap().push(name);
    }
}

#[cfg(feature = "lock-manager")]
impl LockObserver for SlowObserver {
    fn waiting(&self, _lock: &ObservedLock) {
        self.call_slowly("waiting");
    }

    fn request_ended(&self, _lock: &ObservedLock, _end: &RequestEnd) {
        self.call("request ended");
    }

    fn overdue(&self, _lock: &ObservedLock, _held: Duration) {
        self.call_slowly("overdue");
    }

    fn hold_ended(&self, _lock: &ObservedLock, _end: &HoldEnd) {
        self.call("hold ended");
    }
}

#[cfg(feature = "lock-manager")]
#[test]
fn end_of_a_request_follows_the_report_that_it_waits() {
    let (observer, has_begun, ending) = SlowObserver::leaked();
    let mut record = observer.record(&LockOptions::wait_forever());
    let notice = record.wait_notice().unwrap();
    thread::scope(|threads| {
        threads.spawn(|| notice.waits());
        has_begun.recv().unwrap();
        ending.send(()).unwrap();
        record.not_granted(&LockError::new(LockErrorKind::TimedOut), Instant::now());
    });
    assert_eq!(
        *observer.calls.lock().unwrap(),
        ["waiting", "request ended"]
    );
}

#[cfg(feature = "lock-manager")]
#[test]
fn end_of_a_hold_follows_the_warning_about_it() {
    let (observer, has_begun, ending) = SlowObserver::leaked();
    let record = observer.record(&LockOptions::no_wait().warn_after(Duration::ZERO));
    let grant = record.granted(None, Instant::now()).unwrap();
    has_begun.recv().unwrap();
    ending.send(()).unwrap();
    grant.releasing().ended(&Ok(()), Instant::now());
    // The thread of the warnings has not called yet if the end did not wait for it.
    while observer.calls.lock().unwrap().len() < 3 {
        thread::yield_now();
    }
    assert_eq!(
        *observer.calls.lock().unwrap(),
        ["request ended", "overdue", "hold ended"]
    );
}

/// The thread of the warnings sleeps until the earliest time that it knows.
#[cfg(feature = "lock-manager")]
#[test]
fn short_warning_time_does_not_wait_for_a_long_one() {
    struct Warned(mpsc::SyncSender<()>);

    impl LockObserver for Warned {
        fn overdue(&self, _lock: &ObservedLock, _held: Duration) {
            self.0.send(()).unwrap();
        }
    }

    let (warned, is_warned) = mpsc::sync_channel(1);
    let observer: &Warned = Box::leak(Box::new(Warned(warned)));
    let hold = |after| {
        let (options, scope) = (LockOptions::no_wait().warn_after(after), LockScope::Session);
        let mut record = RequestRecord::new(&"short".into(), &options, scope, None, Instant::now());
        record.observe_with(observer);
        record.granted(None, Instant::now())
    };
    let _long = hold(Duration::from_secs(3600));
    // The thread finds a hold that begins before it sleeps, so one alone would show nothing.
    for _ in 0..100 {
        let short = hold(Duration::ZERO);
        is_warned.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(short);
    }
}

/// A subscriber may release the lock when it receives the warning.
#[cfg(feature = "lock-manager")]
#[test]
fn end_of_a_hold_does_not_wait_for_its_own_thread() {
    struct Releaser(Mutex<Option<GrantRecord>>, mpsc::SyncSender<()>);

    impl LockObserver for Releaser {
        fn overdue(&self, _lock: &ObservedLock, _held: Duration) {
            let grant = loop {
                match self.0.lock().unwrap().take() {
                    Some(grant) => break grant,
                    None => thread::yield_now(),
                }
            };
            grant.releasing().ended(&Ok(()), Instant::now());
            self.1.send(()).unwrap();
        }
    }

    let (released, is_released) = mpsc::sync_channel(1);
    let observer: &Releaser = Box::leak(Box::new(Releaser(Mutex::default(), released)));
    let options = LockOptions::no_wait().warn_after(Duration::ZERO);
    let scope = LockScope::Session;
    let mut record = RequestRecord::new(&"own".into(), &options, scope, None, Instant::now());
    record.observe_with(observer);
    *observer.0.lock().unwrap() = record.granted(None, Instant::now());
    is_released.recv_timeout(Duration::from_secs(60)).unwrap();
}

/// Lines of a subscriber.
#[cfg(feature = "lock-manager")]
struct Lines(&'static Mutex<Vec<u8>>);

#[cfg(feature = "lock-manager")]
impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the lines of the spans that `create` creates.
#[cfg(feature = "lock-manager")]
fn lines_of_spans(create: impl Fn()) -> String {
    use tracing_subscriber::fmt::format::FmtSpan;

    let lines: &'static Mutex<Vec<u8>> = Box::leak(Box::default());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_span_events(FmtSpan::NEW)
        .with_writer(move || Lines(lines))
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        create();
        // A thread without a subscriber disables a span that it creates first.
        tracing::callsite::rebuild_interest_cache();
        create();
    });
    String::from_utf8(lines.lock().unwrap().clone()).unwrap()
}

/// The process has no observer.
#[cfg(feature = "lock-manager")]
#[test]
fn span_of_a_lock_manager_has_the_database() {
    let text = lines_of_spans(|| {
        let (options, scope) = (LockOptions::no_wait(), LockScope::Session);
        let mut record = RequestRecord::new(&"span".into(), &options, scope, None, Instant::now());
        record.set_backend(|| Some(crate::backend::Backend::Postgres));
        drop(record.granted(None, Instant::now()).unwrap().span());
    });
    assert!(text.contains("advisory_lock.held"), "{text}");
    assert!(text.contains("db.system.name=\"postgresql\""), "{text}");
}

/// The page docs/events.md lists them.
#[cfg(feature = "lock-manager")]
#[test]
fn spans_have_their_fields() {
    let options = LockOptions::no_wait().shared().label("nightly-report");
    let text = lines_of_spans(|| {
        let (key, now) = ("spans".into(), Instant::now());
        let backend = Some(crate::backend::Backend::Postgres);
        let record = RequestRecord::new(&key, &options, LockScope::Session, backend, now);
        drop(record.span());
        drop(record.granted(Some(1), now).unwrap().span());
    });
    for (span, has_kind) in [
        ("advisory_lock.acquire", true),
        ("advisory_lock.held", false),
    ] {
        let begin = format!("{span}{{");
        let line = text.lines().rfind(|line| line.contains(&begin)).unwrap();
        for field in [
            "lock.key=\"spans\"",
            "lock.id=",
            "lock.label=\"nightly-report\"",
            "lock.scope=\"session\"",
            "lock.mode=\"shared\"",
            "lock.request=",
            "db.system.name=\"postgresql\"",
        ] {
            assert!(line.contains(field), "{field}: {line}");
        }
        assert_eq!(line.contains("otel.kind=\"client\""), has_kind, "{line}");
    }
}
