//! Each request of each method fails in turn, in each way, on the model: whatever the caller is told must be true.

use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockMode, LockOptions, WaitStrategy};

use crate::pg_model::{Fault, Level, Lock, Model, ModelSession};

const FAULTS: [Fault; 11] = [
    Fault::Refuse("55P03"),
    Fault::Refuse("40P01"),
    Fault::Refuse("57014"),
    Fault::Refuse("53200"),
    Fault::Refuse("XX000"),
    Fault::DoneButReported("55P03"),
    Fault::DoneButReported("40P01"),
    Fault::DoneButReported("57014"),
    Fault::DoneButReported("XX000"),
    Fault::LostReply,
    Fault::Terminated,
];

/// What is done with the lock; `Ok(true)` if it was done under the lock and the lock is released.
type Method = fn(&mut ModelSession, &LockKey, LockOptions) -> Result<bool, LockError>;

fn with(conn: &mut ModelSession, key: &LockKey, options: LockOptions) -> Result<bool, LockError> {
    conn.try_with_advisory_lock(key, options, |conn| held(conn, key))
        .map(|ran| ran.is_some())
}

fn hold(conn: &mut ModelSession, key: &LockKey, options: LockOptions) -> Result<bool, LockError> {
    match conn.try_acquire_advisory_lock(key, options)? {
        Some(guard) => guard.release().map(|()| true),
        None => Ok(false),
    }
}

fn scope(conn: &mut ModelSession, key: &LockKey, options: LockOptions) -> Result<bool, LockError> {
    conn.try_with_advisory_xact_lock(key, options, |conn| held(conn, key))
        .map(|ran| ran.is_some())
}

/// "Held" is true: a body runs only under the lock.
fn held(conn: &mut ModelSession, key: &LockKey) -> Result<(), LockError> {
    let pid = conn.pid();
    let rows = conn.model().held(key);
    assert!(
        rows.iter().any(|row| row.granted && row.pid == pid),
        "the body runs without the lock: {rows:?}"
    );
    Ok(())
}

/// What the key is when the method is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Key {
    Free,
    /// Held by somebody who keeps it.
    Busy,
    /// Held by this session already, one level.
    Mine,
}

fn play(
    method: Method,
    key: Key,
    options: LockOptions,
    hides: bool,
    fault: (usize, Fault),
) -> bool {
    let model = Model::default();
    let name = LockKey::from("faults");
    let lock = Lock {
        key: name.space(),
        mode: LockMode::Exclusive,
    };
    let other = model.connect();
    let mut conn = model.connect();
    let take = |pid| {
        model
            .run(|server| server.request(pid, lock, Level::Session, false))
            .unwrap()
    };
    match key {
        Key::Free => {}
        Key::Busy => drop(take(other.pid())),
        Key::Mine => drop(take(conn.pid())),
    }
    conn.hides_codes = hides;
    conn.faults.plan(fault.0, fault.1);
    let result = method(&mut conn, &name, options);
    let met = conn.faults.requests() > fault.0;

    let context = format!("{key:?} {options:?} hides {hides} {fault:?}: {result:?}");
    if key == Key::Busy {
        assert_ne!(result.as_ref().ok(), Some(&true), "{context}");
    }
    // "Not held" is true: on a live session only the outer level is left, and that one is.
    let pid = conn.pid();
    let lost = !conn.is_alive();
    let mine = model.held(&name).iter().any(|row| row.pid == pid);
    assert_eq!(
        mine,
        key == Key::Mine && !lost,
        "held after the call: {context}"
    );
    if mine {
        let unlocked = model.run(|server| server.unlock(pid, lock));
        assert_eq!(unlocked, Ok(true), "{context}");
        assert!(
            model.held(&name).is_empty(),
            "one level too many: {context}"
        );
    }
    met
}

/// Plays the method with a fault at each of its requests, until it makes no further one.
fn fail_each_request(method: Method) {
    let limit = Duration::from_millis(2);
    let wait = LockOptions::wait_up_to(limit);
    let all_options = [
        LockOptions::no_wait(),
        wait.interval(Duration::from_millis(1)),
        wait.strategy(WaitStrategy::Block),
    ];
    for key in [Key::Free, Key::Busy, Key::Mine] {
        for options in all_options {
            for hides in [false, true] {
                for fault in FAULTS {
                    let failed =
                        (0..30).take_while(|at| play(method, key, options, hides, (*at, fault)));
                    assert!(failed.count() > 0, "no request was made");
                }
            }
        }
    }
}

#[test]
fn every_request_of_a_body_under_a_lock() {
    fail_each_request(with);
}

#[test]
fn every_request_of_a_guard() {
    fail_each_request(hold);
}

#[test]
fn every_request_of_a_scope() {
    fail_each_request(scope);
}
