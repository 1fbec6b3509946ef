//! Batches of very many operations, on a server of their own.

use advisory_locking::LockKey;
use advisory_locking::session::BatchMode::Execute;
use advisory_locking::session::TokenSource;
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::proxy::Proxy;
use testkit::server::eventually;

use super::locks_of;
use crate::client::{Connect, acquire, release};

fn keys(count: i64) -> Vec<LockKey> {
    // Far apart, so that the order of keys is not the order of operations.
    (0..count)
        .map(|number| LockKey::from(number.wrapping_mul(-7_046_029_254_386_353_131)))
        .collect()
}

/// Waits until the sessions of a case have ended, because all sessions share the lock table.
fn until_empty(private: &ClusterGuard) {
    let mut observer = private.connect();
    eventually("an empty lock table", || {
        observer.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    });
}

pub(crate) fn ten_thousand_locks(open: Connect) {
    let private = ClusterGuard::acquire();
    let mut observer = private.connect();
    let (mut session, mut other) = (open(&private.url()), open(&private.url()));
    let keys = keys(10_000);
    let contended: Vec<_> = keys.iter().step_by(7).map(acquire).collect();
    assert!(other.execute(&contended).iter().all(Option::is_some));

    let expected: Vec<_> = (0..keys.len())
        .map(|at| (at % 7 != 0).then_some(1))
        .collect();
    let ops: Vec<_> = keys.iter().map(acquire).collect();
    assert!(session.execute(&ops) == expected, "the answers, in order");
    let granted = i64::try_from(keys.len() - contended.len()).unwrap();
    assert_eq!(locks_of(&mut observer, session.pid), granted);

    let back: Vec<_> = keys.iter().map(release).collect();
    assert!(session.execute(&back) == expected, "the answers, in order");
    assert_eq!(locks_of(&mut observer, session.pid), 0);
    drop((session, other));
    until_empty(&private);
}

pub(crate) fn full_lock_table_is_compensated(open: Connect) {
    let private = ClusterGuard::acquire();
    let mut observer = private.connect();
    let proxy = Proxy::to(&private.url());
    let mut session = open(&proxy.url());
    // More than the lock table holds.
    let keys = keys(100_000);
    let (kept, wanted) = keys.split_at(100);
    let kept: Vec<_> = kept.iter().map(acquire).collect();
    let wanted: Vec<_> = wanted.iter().map(acquire).collect();
    assert!(session.execute(&kept).iter().all(Option::is_some));

    let error = session
        .send(Execute, &wanted, &TokenSource::default())
        .unwrap_err();
    assert!(!error.is_disconnected(), "{error:?}");
    if let Some(code) = error.code() {
        assert_eq!(code.as_str(), "53200");
    }
    let left = locks_of(&mut observer, session.pid);
    assert!(left > 1_000, "{left}: the batch failed in the middle");

    let before = proxy.notice_count();
    let compensated = session.compensate(&wanted);
    assert_eq!(proxy.notice_count() - before, 0, "a warning");
    let released = compensated.iter().filter(|answer| answer.is_some()).count();
    assert_eq!(i64::try_from(released).unwrap(), left - 100);
    assert_eq!(locks_of(&mut observer, session.pid), 100);
    assert!(session.execute(&kept).iter().all(Option::is_some));
    drop(session);
    until_empty(&private);
}
