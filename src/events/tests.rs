use std::time::Duration;
#[cfg(feature = "lock-manager")]
use std::{
    sync::{Mutex, mpsc},
    thread,
    time::Instant,
};

use super::millis;
#[cfg(feature = "lock-manager")]
use super::{NotGranted, RequestRecord};
#[cfg(feature = "lock-manager")]
use crate::observer::{LockObserver, ObservedLock, RequestEnd};
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

/// Keeps the thread of `waiting` until the request is about to end.
#[cfg(feature = "lock-manager")]
struct SlowObserver {
    calls: Mutex<Vec<&'static str>>,
    begun: mpsc::SyncSender<()>,
    ends: Mutex<mpsc::Receiver<()>>,
}

#[cfg(feature = "lock-manager")]
impl LockObserver for SlowObserver {
    fn waiting(&self, _lock: &ObservedLock) {
        self.begun.send(()).unwrap();
        self.ends.lock().unwrap().recv().unwrap();
        // The end of the request has this time to overtake.
        thread::sleep(Duration::from_millis(50));
        self.calls.lock().unwrap().push("waiting");
    }

    fn request_ended(&self, _lock: &ObservedLock, _end: &RequestEnd) {
        self.calls.lock().unwrap().push("ended");
    }
}

#[cfg(feature = "lock-manager")]
#[test]
fn end_of_a_request_follows_the_report_that_it_waits() {
    let ((begun, has_begun), (ending, ends)) = (mpsc::sync_channel(1), mpsc::channel());
    let observer: &SlowObserver = Box::leak(Box::new(SlowObserver {
        calls: Mutex::default(),
        begun,
        ends: Mutex::new(ends),
    }));
    let options = LockOptions::wait_forever();
    let scope = LockScope::Session;
    let mut record = RequestRecord::new(&"slow".into(), &options, scope, None, Instant::now());
    record.observe_with(observer);
    let notice = record.wait_notice().unwrap();
    thread::scope(|threads| {
        threads.spawn(|| notice.send());
        has_begun.recv().unwrap();
        ending.send(()).unwrap();
        record.not_granted(NotGranted::TimedOut, Instant::now());
    });
    assert_eq!(*observer.calls.lock().unwrap(), ["waiting", "ended"]);
}
