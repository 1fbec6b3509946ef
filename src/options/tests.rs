//! Options: contradictions, limits and defaults.

use super::*;

#[test]
fn contradictions_are_refused() {
    let key = LockKey::from("nightly-report");
    let wait = LockOptions::wait_up_to(Duration::from_secs(1));
    let bad = [
        wait.interval(Duration::ZERO),
        LockOptions::no_wait().strategy(WaitStrategy::Poll),
        LockOptions::no_wait().interval(Duration::from_millis(1)),
        wait.strategy(WaitStrategy::Block)
            .interval(Duration::from_millis(1)),
    ];
    for options in bad {
        let error = options.validate(&key, LockScope::Session).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidOptions, "{options:?}");
        assert_eq!(error.key(), Some(&key), "{options:?}");
    }
}

/// A single option may be invalid; then it contradicts no other one.
#[test]
fn invalid_option_is_named() {
    let options = LockOptions::wait_forever().interval(Duration::ZERO);
    let validated = options.validate(&LockKey::from("nightly-report"), LockScope::Session);
    let message = validated.unwrap_err().to_string();
    let expected = "the options are not valid: an interval of zero";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn no_time_is_no_wait() {
    assert!(!LockOptions::no_wait().waits());
    assert!(!LockOptions::wait_up_to(Duration::ZERO).waits());
    assert!(LockOptions::wait_up_to(Duration::from_nanos(1)).waits());
    assert!(LockOptions::wait_forever().waits());
}

#[test]
#[cfg(feature = "lock-manager")]
fn remaining_limit() {
    let left = |options: LockOptions| {
        let rest = options.after(Duration::from_secs(2))?;
        assert_eq!(rest.limit(), options.limit());
        Some(rest.remaining(Duration::ZERO))
    };
    let of = |seconds| LockOptions::wait_up_to(Duration::from_secs(seconds)).shared();
    assert_eq!(left(LockOptions::no_wait()), None);
    assert_eq!(left(of(5)), Some(Some(Duration::from_secs(3))));
    assert_eq!(left(of(1)), Some(Some(Duration::ZERO)));
    assert_eq!(left(LockOptions::wait_forever()), Some(None));
}

#[test]
fn elapsed_time_counts_against_the_limit_only() {
    let second = Duration::from_secs(1);
    let rest = |options: LockOptions| options.with_elapsed(second).with_elapsed(second);
    let remaining = |options: LockOptions| rest(options).remaining(second);
    assert_eq!(remaining(LockOptions::no_wait()), Some(Duration::ZERO));
    assert_eq!(rest(LockOptions::no_wait()).elapsed, 2 * second);
    let limited = LockOptions::wait_up_to(5 * second);
    assert_eq!(remaining(limited), Some(2 * second));
    assert_eq!(remaining(LockOptions::wait_forever()), None);
    assert!(!rest(LockOptions::wait_up_to(2 * second)).waits());
}

#[test]
fn every_limit_is_valid() {
    let key = LockKey::from(1);
    for limit in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        assert!(
            LockOptions::wait_up_to(limit)
                .validate(&key, LockScope::Session)
                .is_ok()
        );
        assert!(
            LockOptions::wait_up_to(limit)
                .strategy(WaitStrategy::Block)
                .validate(&key, LockScope::Session)
                .is_ok()
        );
    }
    assert!(
        LockOptions::wait_forever()
            .interval(Duration::MAX)
            .validate(&key, LockScope::Session)
            .is_ok()
    );
}

#[test]
fn the_default_neither_waits_nor_shares() {
    assert_eq!(LockOptions::default(), LockOptions::no_wait());
    assert_eq!(LockOptions::default().mode, LockMode::Exclusive);
    assert_eq!(LockOptions::default().wait_strategy(), WaitStrategy::Poll);
    assert_eq!(
        LockOptions::default().max_interval(),
        Duration::from_millis(100)
    );
    assert_eq!(LockOptions::default().on_missing_lock, OnMissingLock::Warn);
}

#[test]
fn names_are_those_of_metrics() {
    let strategies = [WaitStrategy::Poll, WaitStrategy::Block];
    assert_eq!(strategies.map(WaitStrategy::name), ["poll", "block"]);
}
