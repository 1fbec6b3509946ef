//! Waits whose limit coincides with the release: the server may report a timeout and still have
//! granted the lock.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockKey, LockMode, LockOptions, WaitStrategy};
use diesel::Connection;
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::proxy::CountedConnection;
use testkit::server::{block, connect, fresh_key, raced_time_outs, url};

/// Number of tests that share the timeouts.
const TESTS: u32 = 5;
const LIMIT: Duration = Duration::from_millis(5);

#[test]
fn outside_a_transaction() {
    race(Waiter::plain());
}

#[test]
fn under_a_shared_lock_of_its_own() {
    let own = Waiter {
        holder: LockMode::Shared,
        outer: "ShareLock",
        ..Waiter::plain()
    };
    race(Waiter {
        rounds: |conn, key, round| {
            let shared = LockOptions::no_wait().shared();
            let mut outer = conn.acquire_advisory_lock(key, shared).unwrap();
            while round(&mut outer, session_level) {}
            outer.release().unwrap();
        },
        ..own
    });
}

#[test]
fn in_a_test_transaction() {
    race(Waiter {
        rounds: |conn, _, round| {
            conn.begin_test_transaction().unwrap();
            while round(conn, session_level) {}
        },
        ..Waiter::plain()
    });
}

#[test]
fn in_a_transaction_where_that_is_allowed() {
    race(Waiter {
        rounds: |conn, _, round| {
            conn.transaction(|conn| {
                while round(conn, session_level) {}
                diesel::QueryResult::Ok(())
            })
            .unwrap();
        },
        ..Waiter::plain()
    });
}

#[test]
fn at_transaction_level() {
    race(Waiter {
        rounds: |conn, _, round| {
            while conn
                .transaction(|conn| diesel::QueryResult::Ok(round(conn, transaction_level)))
                .unwrap()
            {}
        },
        ..Waiter::plain()
    });
}

/// One attempt. A granted lock is released, or ends with its transaction.
type Attempt = fn(&mut PgConnection, &LockKey, &mut Counts);

fn limited() -> LockOptions {
    LockOptions::wait_up_to(LIMIT).strategy(WaitStrategy::Block)
}

fn session_level(conn: &mut PgConnection, key: &LockKey, counts: &mut Counts) {
    let options = limited().allow_in_transaction();
    match conn.try_acquire_advisory_lock(key, options).unwrap() {
        None => counts.timed_out += 1,
        Some(mut guard) => {
            let pid = guard.pid();
            counts.check_granted(&guard.held_modes(key, pid));
            guard.release().unwrap();
        }
    }
}

fn transaction_level(conn: &mut PgConnection, key: &LockKey, counts: &mut Counts) {
    if conn.try_acquire_advisory_xact_lock(key, limited()).unwrap() {
        let pid = conn.pid();
        counts.check_granted(&conn.held_modes(key, pid));
    } else {
        counts.timed_out += 1;
    }
}

/// Counters of one waiter.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    granted: u32,
    granted_not_held: u32,
    timed_out: u32,
    timed_out_held: u32,
    outer_lost: u32,
}

impl Counts {
    fn check_granted(&mut self, modes: &str) {
        self.granted += 1;
        self.granted_not_held += u32::from(!modes.contains("ExclusiveLock"));
    }

    /// After a timeout, only the outer lock may be held.
    fn check_timed_out(&mut self, conn: &mut PgConnection, key: &LockKey, outer: &str) {
        let pid = conn.pid();
        let modes = conn.held_modes(key, pid);
        self.outer_lost += u32::from(!modes.contains(outer));
        if modes.contains("ExclusiveLock") {
            self.timed_out_held += 1;
            // Released with plain SQL, so that the test continues and prints its counters.
            let advisory_locking::RawLockKey::Single(number) = key.raw() else {
                panic!("the key is a pair")
            };
            conn.run(&format!("SELECT pg_advisory_unlock({number})"));
        }
    }
}

/// Runs one round. Returns `true` if there are more.
type Round<'r> = &'r mut dyn FnMut(&mut PgConnection, Attempt) -> bool;

#[derive(Clone, Copy)]
struct Waiter {
    /// The mode in which the waiter holds the key throughout.
    outer: &'static str,
    /// The mode in which the other session holds the key.
    holder: LockMode,
    /// Runs all rounds.
    rounds: fn(&mut PgConnection, &LockKey, Round<'_>),
}

impl Waiter {
    fn plain() -> Self {
        Self {
            outer: "",
            holder: LockMode::Exclusive,
            rounds: |conn, _, round| while round(conn, session_level) {},
        }
    }
}

fn race(waiter: Waiter) {
    let key = &fresh_key();
    let (to_waiter, from_holder) = channel();
    let (to_holder, from_waiter) = channel();
    let (counts, notices) = thread::scope(|scope| {
        scope.spawn(move || hold(key, waiter.holder, &to_waiter, &from_waiter));
        let waiting = scope.spawn(move || wait(key, waiter, &to_holder, &from_holder));
        waiting.join().unwrap()
    });
    println!("{counts:?}, notices: {notices}");
    assert!(counts.timed_out >= raced_time_outs() / TESTS, "{counts:?}");
    let wrong = counts.granted_not_held + counts.timed_out_held + counts.outer_lost;
    assert_eq!(wrong, 0, "{counts:?}");
    // A release of a lock that is not held would write a warning, also into the server's log.
    assert_eq!(notices, 0, "warnings of the server");
}

enum ToHolder {
    Waiting(Instant),
    Over { timed_out: bool },
}

fn wait(
    key: &LockKey,
    waiter: Waiter,
    holder: &Sender<ToHolder>,
    locked: &Receiver<()>,
) -> (Counts, usize) {
    let mut counted = CountedConnection::connect(&url());
    let mut counts = Counts::default();
    let mut round = |conn: &mut PgConnection, attempt: Attempt| {
        locked.recv().unwrap();
        holder.send(ToHolder::Waiting(Instant::now())).unwrap();
        let before = counts.timed_out;
        attempt(conn, key, &mut counts);
        let timed_out = counts.timed_out > before;
        if timed_out {
            counts.check_timed_out(conn, key, waiter.outer);
        }
        holder.send(ToHolder::Over { timed_out }).unwrap();
        counts.timed_out < raced_time_outs() / TESTS
    };
    (waiter.rounds)(&mut counted.conn, key, &mut round);
    (counts, counted.notices())
}

/// Holds the lock and releases it when the waiter's limit passes. A timeout makes the next release
/// earlier, and a grant makes it later, so about half of the waits time out.
fn hold(key: &LockKey, mode: LockMode, waiter: &Sender<()>, said: &Receiver<ToHolder>) {
    const STEP_MICROS: i64 = 20;
    const JITTER_MICROS: i64 = 200;
    let mut conn = connect();
    let mut late_micros = 500;
    loop {
        // A transaction-level lock of the previous round is held until its transaction ends.
        let guard = conn.acquire_advisory_lock(key, block().mode(mode)).unwrap();
        // The waiter has ended: all rounds are over.
        if waiter.send(()).is_err() {
            return guard.release().unwrap();
        }
        let Ok(ToHolder::Waiting(since)) = said.recv() else {
            return guard.release().unwrap();
        };
        let limit_micros = i64::try_from(LIMIT.as_micros()).unwrap();
        let micros = limit_micros + late_micros + fastrand::i64(0..JITTER_MICROS);
        let release_at = since + Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        // Sleeping is not precise enough for the last millisecond.
        thread::sleep(
            (release_at - Duration::from_millis(1)).saturating_duration_since(Instant::now()),
        );
        while Instant::now() < release_at {
            std::hint::spin_loop();
        }
        guard.release().unwrap();
        match said.recv() {
            Ok(ToHolder::Over { timed_out: true }) => late_micros -= STEP_MICROS,
            Ok(ToHolder::Over { timed_out: false }) => late_micros += STEP_MICROS,
            Ok(ToHolder::Waiting(_)) | Err(_) => return,
        }
    }
}
