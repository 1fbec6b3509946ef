use std::sync::Mutex;
use std::time::Duration;

use super::{
    HoldEnd, HoldOutcome, LockObserver, LockScope, ObservedLock, RequestEnd, RequestOutcome,
};
use crate::key::LockKey;
use crate::lock_mode::LockMode;

/// Records the names of its calls.
#[derive(Default)]
struct Recorder(Mutex<Vec<&'static str>>);

impl Recorder {
    fn record(&self, call: &'static str) {
        self.0.lock().unwrap().push(call);
    }
}

impl LockObserver for &Recorder {
    fn requested(&self, _: &ObservedLock) {
        self.record("requested");
    }

    fn waiting(&self, _: &ObservedLock) {
        self.record("waiting");
    }

    fn request_ended(&self, _: &ObservedLock, _: &RequestEnd) {
        self.record("request_ended");
    }

    fn hold_ended(&self, _: &ObservedLock, _: &HoldEnd) {
        self.record("hold_ended");
    }

    fn overdue(&self, _: &ObservedLock, _: Duration) {
        self.record("overdue");
    }
}

struct PanicsAtCalls;

impl LockObserver for PanicsAtCalls {
    fn requested(&self, _: &ObservedLock) {
        std::panic::panic_any(PanicsInDrop);
    }
}

/// Payload of a panic.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        std::panic::panic_any("a payload panics");
    }
}

#[test]
fn observer_is_called_after_the_panic_of_another() {
    let recorder = Recorder::default();
    (PanicsAtCalls, &recorder).requested(&lock());
    assert_eq!(recorder.0.into_inner().unwrap(), ["requested"]);
}

fn lock() -> ObservedLock {
    ObservedLock {
        key: LockKey::from("report"),
        label: "",
        scope: LockScope::Session,
        mode: LockMode::Exclusive,
        strategy: None,
        backend: None,
        pid: None,
        request: 1,
    }
}

#[test]
fn pair_of_observers_receives_each_call() {
    let (first, second) = (Recorder::default(), Recorder::default());
    let pair = (&first, &second);
    let lock = lock();
    pair.requested(&lock);
    pair.waiting(&lock);
    pair.request_ended(
        &lock,
        &RequestEnd {
            outcome: RequestOutcome::Granted,
            waited: Duration::ZERO,
            contended: true,
            polls: 0,
            error_kind: None,
        },
    );
    pair.overdue(&lock, Duration::from_secs(1));
    pair.hold_ended(
        &lock,
        &HoldEnd {
            outcome: HoldOutcome::Released,
            held: Duration::from_secs(1),
            error_kind: None,
        },
    );
    let expected = [
        "requested",
        "waiting",
        "request_ended",
        "overdue",
        "hold_ended",
    ];
    for recorder in [first, second] {
        assert_eq!(recorder.0.into_inner().unwrap(), expected);
    }
}
