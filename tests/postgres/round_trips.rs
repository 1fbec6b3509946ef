//! Number of round trips of each call on a warm connection. The bench of the same name prints it.

use std::thread;
use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions, WaitStrategy};
use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::proxy::CountedConnection;
use testkit::server::{block, connect, fresh_key, poll, url};

/// A call, its measured number of round trips, and its documented number.
pub(crate) struct Line {
    pub(crate) call: &'static str,
    pub(crate) taken: u32,
    pub(crate) promised: u32,
}

/// Makes each call twice on one connection, and returns the second measurement.
pub(crate) fn measure() -> Vec<Line> {
    let mut conn = CountedConnection::connect(&url());
    let key = fresh_key();
    let once = |conn: &mut CountedConnection| {
        [
            free(conn, &key),
            in_a_transaction(conn, &key),
            busy(conn, &key),
        ]
    };
    once(&mut conn);
    once(&mut conn).into_iter().flatten().collect()
}

const fn line(call: &'static str, promised: u32, taken: u32) -> Line {
    Line {
        call,
        taken,
        promised,
    }
}

fn free(conn: &mut CountedConnection, key: &LockKey) -> Vec<Line> {
    let mut lines = Vec::new();
    for (call, options) in [
        ("acquire, no wait", LockOptions::no_wait()),
        ("acquire, Poll", poll()),
        ("acquire, Block", block()),
        ("acquire, shared", LockOptions::no_wait().shared()),
    ] {
        let (both, alone) = conn.round_trips_within(|conn, so_far| {
            let guard = conn.acquire_advisory_lock(key, options).unwrap();
            let alone = so_far();
            guard.release().unwrap();
            alone
        });
        lines.push(line(call, 1, alone));
        lines.push(line("  release", 1, both - alone));
    }
    let (taken, ()) = conn.round_trips(|conn| {
        conn.with_advisory_lock(key, block(), |_| Ok::<_, LockError>(()))
            .unwrap();
    });
    lines.push(line("with_advisory_lock", 2, taken));
    let (taken, ()) = conn.round_trips(|conn| {
        conn.with_advisory_xact_lock(key, block(), |_| Ok::<_, LockError>(()))
            .unwrap();
    });
    lines.push(line(
        "with_advisory_xact_lock: begin, lock, commit",
        3,
        taken,
    ));
    lines
}

fn in_a_transaction(conn: &mut CountedConnection, key: &LockKey) -> Vec<Line> {
    AnsiTransactionManager::begin_transaction(&mut conn.conn).unwrap();
    let (no_wait, granted) = conn.round_trips(|conn| {
        conn.try_acquire_advisory_xact_lock(key, LockOptions::no_wait())
            .unwrap()
    });
    assert!(granted);
    let (waiting, granted) =
        conn.round_trips(|conn| conn.try_acquire_advisory_xact_lock(key, block()).unwrap());
    assert!(granted);
    AnsiTransactionManager::commit_transaction(&mut conn.conn).unwrap();
    vec![
        line("in a transaction, no wait", 1, no_wait),
        line("in a transaction, Block", 1, waiting),
    ]
}

fn busy(conn: &mut CountedConnection, key: &LockKey) -> Vec<Line> {
    let (mut holder, mut observer) = (connect(), connect());
    let guard = holder.acquire_advisory_lock(key, block()).unwrap();
    let refused = |conn: &mut PgConnection, options| {
        assert!(
            conn.try_acquire_advisory_lock(key, options)
                .unwrap()
                .is_none()
        );
    };
    let (asked, ()) = conn.round_trips(|conn| refused(conn, LockOptions::no_wait()));
    let (reported, ()) = conn.round_trips(|conn| {
        let options = LockOptions::no_wait().report_holders(true);
        assert!(conn.acquire_advisory_lock(key, options).is_err());
    });
    // On a stalled machine, the limit may pass before the reply to the try, so no wait follows.
    let mut timed_out = 0;
    for seconds in [1, 8, 64] {
        let limit = LockOptions::wait_up_to(Duration::from_secs(seconds));
        let limited = limit.strategy(WaitStrategy::Block);
        (timed_out, ()) = conn.round_trips(|conn| refused(conn, limited));
        if timed_out > 1 {
            break;
        }
    }

    let pid = conn.conn.pid();
    let waited = thread::scope(|scope| {
        scope.spawn(|| {
            observer.wait_until_waiting(pid);
            guard.release().unwrap();
        });
        let (_, waited) = conn.round_trips_within(|conn, so_far| {
            let _guard = conn.acquire_advisory_lock(key, block()).unwrap();
            so_far()
        });
        waited
    });
    vec![
        line("busy, no wait", 1, asked),
        line("busy, no wait: try, holders", 2, reported),
        line("busy, Block, granted: try, wait", 2, waited),
        line("busy, Block, timed out: try, wait, clean-up", 3, timed_out),
    ]
}

#[test]
fn no_call_takes_more_than_promised() {
    for Line {
        call,
        taken,
        promised,
    } in measure()
    {
        assert_eq!(taken, promised, "{call}");
    }
}

/// A cached statement still asks the server.
#[test]
fn a_statement_from_the_cache_asks_the_server() {
    let mut conn = CountedConnection::connect(&url());
    let mut holder = connect();
    let key = fresh_key();
    let mut ask = || {
        conn.round_trips(|conn| {
            let acquired = conn.try_acquire_advisory_lock(&key, LockOptions::no_wait());
            acquired.unwrap().is_some()
        })
    };
    let (_, granted) = ask();
    assert!(granted);
    for _ in 0..2 {
        assert_eq!(ask(), (2, true));
        let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
        assert_eq!(ask(), (1, false));
        guard.release().unwrap();
    }
}

/// The timeout races rely on this count.
#[test]
fn the_proxy_counts_warnings() {
    let mut conn = CountedConnection::connect(&url());
    let (taken, ()) = conn.round_trips(|conn| conn.run("SELECT pg_advisory_unlock(1)"));
    assert_eq!((taken, conn.notices()), (1, 1));
}
