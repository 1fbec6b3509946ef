//! Locks of another session, and recorded events, on each blocking adapter.

use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::session::LockSession;
use advisory_locking::testing::{Event, TestLocks};
use advisory_locking::{
    AdvisoryLocking, LockError, LockErrorKind, LockOptions, OnMissingLock, WaitStrategy,
};

use crate::{BOTH, LONG, QUIET, kind, unreachable_body, until_contended, wait};

on_every_adapter! {
    refused_while_held_elsewhere,
    a_limit_passes_and_is_kept,
    granted_after_the_other_session_releases,
    readers_share_with_readers_elsewhere,
    the_record_has_key_mode_level_and_order,
    a_scope_that_is_refused_leaves_nothing_begun,
    in_the_callers_transaction,
    the_policy_for_missing_locks_holds,
    a_panic_gives_the_lock_back,
    mistakes_are_refused_and_taken_down,
}

fn refused_while_held_elsewhere<S: AdvisoryLocking>(connect: fn() -> S) {
    let mut conn = connect();
    let locks = TestLocks::enter();
    let elsewhere = locks.hold_from_other_session("key");
    assert_eq!(
        conn.try_with_advisory_lock("key", QUIET, unreachable_body)
            .unwrap(),
        None
    );
    assert!(
        conn.try_acquire_advisory_lock("key", QUIET)
            .unwrap()
            .is_none()
    );
    assert_eq!(
        kind(conn.with_advisory_lock("key", QUIET, unreachable_body)),
        LockErrorKind::HeldElsewhere
    );
    let refused = conn.acquire_advisory_lock("key", QUIET).unwrap_err();
    assert_eq!(refused.key(), Some(elsewhere.key()));

    conn.with_advisory_lock("another key", QUIET, |_| Ok::<_, LockError>(()))
        .unwrap();
    drop(elsewhere);
    let ran = conn.try_with_advisory_lock("key", QUIET, |_| Ok::<_, LockError>(1));
    assert_eq!(ran.unwrap(), Some(1));
}

fn a_limit_passes_and_is_kept<S: AdvisoryLocking>(connect: fn() -> S) {
    let limit = Duration::from_millis(60);
    for strategy in BOTH {
        let mut conn = connect();
        let locks = TestLocks::enter();
        let _elsewhere = locks.hold_from_other_session("key");
        let began = Instant::now();
        let outcome = conn.with_advisory_lock("key", wait(limit, strategy), unreachable_body);
        let waited = began.elapsed();
        assert_eq!(kind(outcome), LockErrorKind::TimedOut, "{strategy:?}");
        assert!(waited >= limit, "{strategy:?} waited {waited:?}");
        assert!(waited < LONG, "{strategy:?} waited {waited:?}");
        assert_eq!(locks.events(), [Event::timed_out("key")], "{strategy:?}");
        // Each pause is at least 1/32 of the interval of 100 ms.
        let tries = locks.contention_count("key");
        let at_most = match strategy {
            WaitStrategy::Poll => 20,
            _ => 1,
        };
        assert!(
            (1..=at_most).contains(&tries),
            "{strategy:?}: {tries} tries"
        );
        // A limit of zero tries once.
        let once =
            conn.try_with_advisory_lock("key", wait(Duration::ZERO, strategy), unreachable_body);
        assert_eq!(once.unwrap(), None);
        assert_eq!(locks.contention_count("key"), tries + 1);
    }
}

fn granted_after_the_other_session_releases<S: AdvisoryLocking + 'static>(connect: fn() -> S) {
    let options = [
        wait(LONG, WaitStrategy::Block),
        wait(LONG, WaitStrategy::Poll),
        LockOptions::wait_forever().strategy(WaitStrategy::Block),
        LockOptions::wait_forever().interval(Duration::from_millis(5)),
    ];
    for options in options {
        let locks = TestLocks::enter();
        let elsewhere = locks.hold_from_other_session("key");
        let waiting = thread::spawn({
            let locks = locks.clone();
            move || {
                let _here = locks.attach();
                let ran = connect().with_advisory_lock("key", options, |_| Ok::<_, LockError>(7));
                ran.unwrap()
            }
        });
        until_contended(&locks, "key", 1);
        assert!(!locks.is_held("key"));
        drop(elsewhere);
        assert_eq!(waiting.join().unwrap(), 7);
        assert_eq!(
            locks.events(),
            [Event::acquired("key"), Event::released("key")],
            "{options:?}"
        );
    }
}

fn readers_share_with_readers_elsewhere<S: AdvisoryLocking>(connect: fn() -> S) {
    let mut conn = connect();
    let locks = TestLocks::enter();
    let _readers = locks.share_from_other_session("key");
    let writer = conn.try_acquire_advisory_lock("key", QUIET).unwrap();
    assert!(writer.is_none());
    drop(writer);
    conn.acquire_advisory_lock("key", QUIET.shared())
        .unwrap()
        .release()
        .unwrap();
    let _writer = locks.hold_from_other_session("key");
    let reader = conn.try_acquire_advisory_lock("key", QUIET.shared());
    assert!(reader.unwrap().is_none());
}

fn the_record_has_key_mode_level_and_order<S: AdvisoryLocking>(connect: fn() -> S) {
    let mut conn = connect();
    let locks = TestLocks::enter();
    conn.with_advisory_lock(("sync", 4), QUIET, |conn| {
        conn.with_advisory_lock((1, 2), QUIET.shared(), |_| Ok::<_, LockError>(()))
    })
    .unwrap();
    conn.with_advisory_xact_lock("scope", QUIET, |_| Ok::<_, LockError>(()))
        .unwrap();
    assert_eq!(
        locks.events(),
        [
            Event::acquired(("sync", 4)),
            Event::acquired((1, 2)).shared(),
            Event::released((1, 2)).shared(),
            Event::released(("sync", 4)),
            Event::acquired("scope").in_transaction(),
            Event::released("scope").in_transaction(),
        ]
    );
}

fn a_scope_that_is_refused_leaves_nothing_begun<S: AdvisoryLocking>(connect: fn() -> S) {
    for strategy in BOTH {
        let mut conn = connect();
        let locks = TestLocks::enter();
        let _elsewhere = locks.hold_from_other_session("key");
        let refused = conn.try_with_advisory_xact_lock("key", QUIET, unreachable_body);
        assert_eq!(refused.unwrap(), None);
        let limit = wait(Duration::from_millis(5), strategy);
        let timed_out = conn.with_advisory_xact_lock("key", limit, unreachable_body);
        assert_eq!(kind(timed_out), LockErrorKind::TimedOut);
        assert!(!conn.session_transaction_state().is_open());
        assert_eq!(
            locks.events(),
            [
                Event::held_elsewhere("key").in_transaction(),
                Event::timed_out("key").in_transaction()
            ]
        );
    }
}

fn in_the_callers_transaction<S: AdvisoryLocking>(connect: fn() -> S) {
    for strategy in BOTH {
        let mut conn = connect();
        let locks = TestLocks::enter();
        let elsewhere = locks.hold_from_other_session("key");
        LockSession::session_begin(&mut conn).unwrap();
        assert!(!conn.try_acquire_advisory_xact_lock("key", QUIET).unwrap());
        let limit = wait(Duration::from_millis(5), strategy);
        let refused = conn.acquire_advisory_xact_lock("key", limit);
        assert_eq!(kind(refused), LockErrorKind::TimedOut);
        drop(elsewhere);
        conn.acquire_advisory_xact_lock("key", QUIET).unwrap();
        // The transaction remains usable.
        assert!(conn.session_transaction_state().is_open());
        LockSession::session_commit(&mut conn, None).unwrap();
        let acquired = Event::acquired("key").in_transaction();
        assert_eq!(locks.events().last(), Some(&acquired));
        assert!(!locks.is_held("key"), "its end is not seen");
    }
}

fn the_policy_for_missing_locks_holds<S: AdvisoryLocking>(connect: fn() -> S) {
    let strict = LockOptions::no_wait().on_missing_lock(OnMissingLock::Error);
    let locks = TestLocks::enter();
    let refused = connect().with_advisory_lock("key", strict, unreachable_body);
    assert_eq!(kind(refused), LockErrorKind::NoMutualExclusion);
    let refused = Event::not_acquired("key", LockErrorKind::NoMutualExclusion);
    assert_eq!(locks.events(), [refused]);
    drop(locks);
    let _exclusive = TestLocks::enter_exclusive();
    let mut conn = connect();
    conn.acquire_advisory_lock("key", strict)
        .unwrap()
        .release()
        .unwrap();
    assert!(!conn.capabilities().provides_mutual_exclusion());
}

fn a_panic_gives_the_lock_back<S: AdvisoryLocking>(connect: fn() -> S) {
    let mut conn = connect();
    let locks = TestLocks::enter();
    for in_transaction in [false, true] {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let body = |_: &mut S| -> Result<(), LockError> { std::panic::panic_any("on purpose") };
            if in_transaction {
                conn.with_advisory_xact_lock("key", QUIET, body)
            } else {
                conn.with_advisory_lock("key", QUIET, body)
            }
        }));
        assert!(panicked.is_err());
        assert!(!locks.is_held("key"));
    }
    let events = locks.events();
    assert_eq!(
        events,
        [
            Event::acquired("key"),
            Event::released("key"),
            Event::acquired("key").in_transaction(),
            Event::released("key").in_transaction(),
        ]
    );
}

fn mistakes_are_refused_and_taken_down<S: AdvisoryLocking>(connect: fn() -> S) {
    let mut conn = connect();
    let locks = TestLocks::enter();
    let refused = conn.acquire_advisory_xact_lock("key", QUIET);
    assert_eq!(kind(refused), LockErrorKind::NotInTransaction);
    LockSession::session_begin(&mut conn).unwrap();
    let refused = conn.acquire_advisory_lock("key", QUIET).unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::InTransaction);
    let kinds = [
        LockErrorKind::NotInTransaction,
        LockErrorKind::InTransaction,
    ];
    assert_eq!(
        locks.events(),
        [
            Event::not_acquired("key", kinds[0]).in_transaction(),
            Event::not_acquired("key", kinds[1])
        ]
    );
}
