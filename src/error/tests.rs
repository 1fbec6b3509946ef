//! Texts, sources and `Debug` output of errors.

use super::*;
use crate::lock_mode::LockMode;
use crate::lock_report::SessionInfo;

const KINDS: [LockErrorKind; 23] = [
    LockErrorKind::Canceled,
    LockErrorKind::Closed,
    LockErrorKind::CommitFailed,
    LockErrorKind::CommitUnknown,
    LockErrorKind::Database,
    LockErrorKind::Deadlock,
    LockErrorKind::HeldElsewhere,
    LockErrorKind::InTransaction,
    LockErrorKind::InvalidKey,
    LockErrorKind::InvalidOptions,
    LockErrorKind::Lost,
    LockErrorKind::NoMutualExclusion,
    LockErrorKind::NotHeld,
    LockErrorKind::NotInTransaction,
    LockErrorKind::Pool,
    LockErrorKind::SessionChanged,
    LockErrorKind::Standby,
    LockErrorKind::TimedOut,
    LockErrorKind::TooManyLocks,
    LockErrorKind::TransactionAborted,
    LockErrorKind::TransactionLeftOpen,
    LockErrorKind::TransactionPrepared,
    LockErrorKind::Unsupported,
];

/// Logs are searched by these texts, so no two kinds share one.
#[test]
fn each_kind_has_its_own_message() {
    let mut messages = KINDS.map(|kind| LockError::new(kind).to_string());
    messages.sort();
    for pair in messages.windows(2) {
        assert_ne!(pair[0], pair[1]);
    }
    for message in messages {
        assert!(message.len() > 10 && !message.contains('\n'), "{message:?}");
    }
}

#[test]
fn name_is_the_variant_in_snake_case() {
    for kind in KINDS {
        let words = kind.name().split('_').map(|word| {
            let (first, rest) = word.split_at(1);
            format!("{}{rest}", first.to_uppercase())
        });
        assert_eq!(words.collect::<String>(), format!("{kind:?}"));
    }
}

#[test]
fn contended_and_lost_are_few_kinds() {
    let kinds_with = |has: fn(&LockError) -> bool| {
        let with = KINDS.into_iter().filter(|kind| has(&LockError::new(*kind)));
        with.collect::<Vec<_>>()
    };
    assert_eq!(
        kinds_with(LockError::is_contended),
        [LockErrorKind::HeldElsewhere, LockErrorKind::TimedOut]
    );
    assert_eq!(
        kinds_with(LockError::is_lost),
        [
            LockErrorKind::Lost,
            LockErrorKind::NotHeld,
            LockErrorKind::SessionChanged
        ]
    );
}

#[test]
fn message_has_kind_context_and_key() {
    let key = LockKey::from("nightly report");
    let error = LockError::new(LockErrorKind::TooManyLocks);
    let message = error.to_string();
    assert_eq!(message, LockErrorKind::TooManyLocks.to_string());
    assert!(message.starts_with("too many locks: hold fewer"));
    let error = error.with_key(&key);
    assert_eq!(error.to_string(), format!("{message}: {key}"));
    let error = error
        .with_context("so many reports")
        .with_source("not repeated");
    assert_eq!(
        error.to_string(),
        format!("{message}: so many reports: {key}")
    );
    assert!(key.to_string().contains("nightly report"));
    let redacted = LockError::new(LockErrorKind::Pool).with_key(&key.redacted());
    assert!(!format!("{redacted} {redacted:?}").contains("nightly report"));
}

/// A client's error in the context may have lines of its own, such as a hint of the server.
#[test]
fn message_is_one_line_whatever_the_context() {
    let context = "db error: ERROR: out of shared memory\nHINT: Increase the table.\r\n\n end\n";
    let error = LockError::new(LockErrorKind::Database).with_context(context);
    let text = error.to_string();
    let (_, shown) = text.split_once(": ").unwrap();
    assert_eq!(
        shown,
        "db error: ERROR: out of shared memory; HINT: Increase the table.; end"
    );
}

#[test]
fn message_has_limit_and_waited_time() {
    let message = |limit, waited: f64| {
        let waited = Duration::from_secs_f64(waited);
        let error = LockError::new(LockErrorKind::TimedOut).with_wait(limit, waited);
        assert_eq!((error.limit(), error.waited()), (limit, Some(waited)));
        error.to_string().split(": ").skip(1).collect::<String>()
    };
    let second = Some(Duration::from_secs(1));
    assert_eq!(message(second, 1.002_345), "limit 1s, waited 1.002s");
    assert_eq!(
        message(Some(Duration::ZERO), 0.000_5),
        "limit 0ns, waited 500µs"
    );
    assert_eq!(message(None, 30.0), "waited 30s");
}

/// The caller sees the way out without the documentation.
#[test]
fn message_names_the_next_step() {
    for (kind, step) in [
        (LockErrorKind::NotInTransaction, "with_advisory_xact_lock"),
        (LockErrorKind::Pool, "each waiter keeps one"),
        (LockErrorKind::SessionChanged, "transaction pooler"),
        (LockErrorKind::TooManyLocks, "max_locks_per_transaction"),
    ] {
        let message = LockError::new(kind).to_string();
        assert!(message.contains(step), "{message}");
    }
}

#[test]
fn message_counts_the_other_holders() {
    let holder = |pid| LockHolder {
        mode: LockMode::Shared,
        session: SessionInfo {
            pid: Some(pid),
            ..SessionInfo::default()
        },
    };
    let message = |holders: &[i32]| {
        let holders = holders.iter().copied().map(holder).collect();
        let error = LockError::new(LockErrorKind::TimedOut).with_holders(holders);
        let message = error.to_string();
        message
            .split_once(", held by ")
            .map(|(_, named)| named.to_owned())
    };
    assert_eq!(message(&[]), None);
    assert_eq!(message(&[1]).as_deref(), Some("pid 1"));
    assert_eq!(message(&[1, 2]).as_deref(), Some("pid 1 and 1 more"));
    assert_eq!(message(&[1, 2, 3]).as_deref(), Some("pid 1 and 2 more"));
}

#[test]
fn debug_shows_all_fields() {
    let shown = format!(
        "{:?}",
        LockError::new(LockErrorKind::Lost)
            .with_key(&LockKey::from("nightly report"))
            .with_context("the context")
            .with_source("the driver's error")
    );
    for part in [
        "LockError",
        "Lost",
        "nightly report",
        "the context",
        "the driver's error",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn client_error_is_downcast() {
    let error = LockError::new(LockErrorKind::Database).with_source(fmt::Error);
    let error = error.into_client_error::<std::io::Error>().unwrap_err();
    assert!(error.source().is_some(), "another type leaves it in");
    assert_eq!(error.into_client_error::<fmt::Error>().unwrap(), fmt::Error);
    let none = LockError::new(LockErrorKind::Database).into_client_error::<fmt::Error>();
    assert_eq!(none.unwrap_err().kind(), LockErrorKind::Database);
}
