//! Batches that fail in the middle, and their compensation.

use advisory_locking::session::BatchMode::Execute;
use advisory_locking::session::TokenSource;
use advisory_locking::{LockKey, LockMode};
use testkit::observer::Observe;
use testkit::proxy::Proxy;
use testkit::server::{connect, fresh_key, url};
use testkit::temp::TempDatabase;

use super::locks_of;
use crate::client::{Connect, acquire, acquire_in, acquire_with_token};

/// In this database, acquiring a single number in shared mode fails.
pub(crate) fn failed_batch_is_compensated(open: Connect) {
    let database = TempDatabase::create();
    let mut admin = database.connect();
    admin.run("SET allow_system_table_mods = on; \
         ALTER FUNCTION pg_catalog.pg_try_advisory_lock_shared(int8) RENAME TO gone; \
         CREATE FUNCTION pg_catalog.pg_try_advisory_lock_shared(int8) RETURNS bool LANGUAGE plpgsql AS \
         'BEGIN RETURN 1/0 = 1; END'");
    let proxy = Proxy::to(&database.url());
    let mut session = open(&proxy.url());
    let mut other = open(&database.url());

    // The two numbers are the halves of the single one, which the batch does not reach.
    let kept = LockKey::from((1, 2));
    let not_reached = LockKey::from((1_i64 << 32) | 2);
    let [one, two, theirs, fails] = [3, 5, 6, 4].map(|number| LockKey::from(i64::from(number)));
    let pair = LockKey::from((-1, -2));
    assert_eq!(session.execute(&[acquire(&kept)]), [Some(1)]);
    assert_eq!(other.execute(&[acquire(&theirs)]), [Some(1)]);
    let ops = [
        acquire(&one),
        acquire_with_token(&two),
        acquire_in(LockMode::Shared, &pair),
        acquire(&theirs),
        acquire_in(LockMode::Shared, &fails),
        acquire(&not_reached),
    ];
    session
        .send(Execute, &ops, &TokenSource::default())
        .unwrap_err();
    // The batch acquired some locks before it failed.
    assert_eq!(locks_of(&mut admin, session.pid), 4);

    let before = proxy.notice_count();
    let yes = Some(1);
    assert_eq!(session.compensate(&ops), [yes, yes, yes, None, None, None]);
    assert_eq!(session.compensate(&ops), [None; 6]);
    assert_eq!(proxy.notice_count() - before, 0, "a warning");
    assert_eq!(locks_of(&mut admin, session.pid), 1);
    assert_eq!(admin.held_modes(&kept, session.pid), "ExclusiveLock");
    assert_eq!(admin.held_modes(&theirs, other.pid), "ExclusiveLock");
    drop(session);
}

pub(crate) fn batch_with_a_missing_sequence_is_compensated(open: Connect) {
    let proxy = Proxy::to(&url());
    let mut session = open(&proxy.url());
    let mut observer = connect();
    let [kept, plain, with_token] = [fresh_key(), fresh_key(), fresh_key()];
    assert_eq!(session.execute(&[acquire(&kept)]), [Some(1)]);
    let ops = [acquire(&plain), acquire_with_token(&with_token)];
    let missing = TokenSource::Sequence("there_is_no_such_sequence".into());
    let error = session.send(Execute, &ops, &missing).unwrap_err();
    assert!(!error.is_disconnected(), "{error:?}");
    if let Some(code) = error.code() {
        assert_eq!(code.as_str(), "42P01");
    }
    let before = proxy.notice_count();
    session.compensate(&ops);
    assert_eq!(proxy.notice_count() - before, 0, "a warning");
    assert_eq!(locks_of(&mut observer, session.pid), 1);
    assert_eq!(observer.held_modes(&kept, session.pid), "ExclusiveLock");
    drop(session);
}
