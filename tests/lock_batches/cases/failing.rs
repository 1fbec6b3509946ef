//! Rounds that fail half-way, and what undoes them.

use advisory_locking::session::BatchMode::Execute;
use advisory_locking::session::TokenSource;
use advisory_locking::{LockKey, LockMode};

use super::locks_of;
use crate::client::{Connect, take, take_fenced, take_in};
use crate::proxy::{Proxy, by_port, in_the_clear};
use crate::support::{connect, fresh_key, held, run, url};
use crate::throwaway::Database;

/// In this database, to take a single number in shared mode fails.
pub(crate) fn a_round_that_failed_half_way_is_undone(open: Connect) {
    let database = Database::create();
    let mut admin = database.connect();
    run(
        &mut admin,
        "SET allow_system_table_mods = on; \
         ALTER FUNCTION pg_catalog.pg_try_advisory_lock_shared(int8) RENAME TO gone; \
         CREATE FUNCTION pg_catalog.pg_try_advisory_lock_shared(int8) RETURNS bool LANGUAGE plpgsql AS \
         'BEGIN RETURN 1/0 = 1; END'",
    );
    let (proxy, port) = Proxy::to(&database.url());
    let mut session = open(&in_the_clear(&by_port(&database.url(), port)));
    let mut other = open(&database.url());

    // The two numbers are the halves of the single one, which the round does not come to.
    let kept = LockKey::from((1, 2));
    let not_reached = LockKey::from((1_i64 << 32) | 2);
    let [one, two, theirs, fails] = [3, 5, 6, 4].map(|number| LockKey::from(i64::from(number)));
    let pair = LockKey::from((-1, -2));
    assert_eq!(session.serve(&[take(&kept)]), [Some(1)]);
    assert_eq!(other.serve(&[take(&theirs)]), [Some(1)]);
    let steps = [
        take(&one),
        take_fenced(&two),
        take_in(LockMode::Shared, &pair),
        take(&theirs),
        take_in(LockMode::Shared, &fails),
        take(&not_reached),
    ];
    session
        .ask(Execute, &steps, &TokenSource::default())
        .unwrap_err();
    // It is the case that is meant: some were taken.
    assert_eq!(locks_of(&mut admin, session.pid), 4);

    let before = proxy.notices();
    let yes = Some(1);
    assert_eq!(session.undo(&steps), [yes, yes, yes, None, None, None]);
    assert_eq!(session.undo(&steps), [None; 6]);
    assert_eq!(proxy.notices() - before, 0, "a warning");
    assert_eq!(locks_of(&mut admin, session.pid), 1);
    assert_eq!(held(&mut admin, &kept, session.pid.into()), "ExclusiveLock");
    assert_eq!(held(&mut admin, &theirs, other.pid.into()), "ExclusiveLock");
    drop(session);
}

pub(crate) fn a_round_with_a_missing_sequence_is_undone(open: Connect) {
    let (proxy, port) = Proxy::to(&url());
    let mut session = open(&in_the_clear(&by_port(&url(), port)));
    let mut observer = connect();
    let [kept, plain, fenced] = [fresh_key(), fresh_key(), fresh_key()];
    assert_eq!(session.serve(&[take(&kept)]), [Some(1)]);
    let steps = [take(&plain), take_fenced(&fenced)];
    let missing = TokenSource::Sequence("there_is_no_such_sequence".into());
    let error = session.ask(Execute, &steps, &missing).unwrap_err();
    assert!(!error.is_disconnected(), "{error:?}");
    if let Some(code) = error.code() {
        assert_eq!(code.as_str(), "42P01");
    }
    let before = proxy.notices();
    session.undo(&steps);
    assert_eq!(proxy.notices() - before, 0, "a warning");
    assert_eq!(locks_of(&mut observer, session.pid), 1);
    assert_eq!(
        held(&mut observer, &kept, session.pid.into()),
        "ExclusiveLock"
    );
    drop(session);
}
