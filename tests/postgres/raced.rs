//! Waits whose limit coincides with the release. The server then reports a time-out and may have granted the lock.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockKey, LockMode, LockOptions, WaitStrategy};
use diesel::Connection;
use diesel::pg::PgConnection;

use super::proxy::Counted;
use super::rounds::time_outs;
use super::support::{block, connect, fresh_key, held, pid_of, run, url};

/// The scenes, which share the time-outs.
const SCENES: u32 = 5;
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

/// One attempt. Says whether the lock was granted; then it was held, and no longer is or will be with the transaction.
type Attempt = fn(&mut PgConnection, &LockKey, &mut Met);

fn limited() -> LockOptions {
    LockOptions::wait_up_to(LIMIT).strategy(WaitStrategy::Block)
}

fn session_level(conn: &mut PgConnection, key: &LockKey, met: &mut Met) {
    let options = limited().allow_in_transaction();
    match conn.try_acquire_advisory_lock(key, options).unwrap() {
        None => met.timed_out += 1,
        Some(mut guard) => {
            let pid = pid_of(&mut guard);
            met.check_granted(&held(&mut guard, key, pid));
            guard.release().unwrap();
        }
    }
}

fn transaction_level(conn: &mut PgConnection, key: &LockKey, met: &mut Met) {
    if conn.try_acquire_advisory_xact_lock(key, limited()).unwrap() {
        let pid = pid_of(conn);
        met.check_granted(&held(conn, key, pid));
    } else {
        met.timed_out += 1;
    }
}

/// What one waiter met.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    granted: u32,
    granted_not_held: u32,
    timed_out: u32,
    timed_out_held: u32,
    outer_lost: u32,
}

impl Met {
    fn check_granted(&mut self, modes: &str) {
        self.granted += 1;
        self.granted_not_held += u32::from(!modes.contains("ExclusiveLock"));
    }

    /// After a time-out, only the outer lock may be held.
    fn check_timed_out(&mut self, conn: &mut PgConnection, key: &LockKey, outer: &str) {
        let pid = pid_of(conn);
        let modes = held(conn, key, pid);
        self.outer_lost += u32::from(!modes.contains(outer));
        if modes.contains("ExclusiveLock") {
            self.timed_out_held += 1;
            // Given back by hand, so that the test goes on and tells how many.
            let advisory_locking::RawLockKey::Single(number) = key.raw() else {
                panic!("the key is a pair")
            };
            run(conn, &format!("SELECT pg_advisory_unlock({number})"));
        }
    }
}

/// Says whether there are more.
type LockBatch<'r> = &'r mut dyn FnMut(&mut PgConnection, Attempt) -> bool;

#[derive(Clone, Copy)]
struct Waiter {
    /// What the waiter holds all the time.
    outer: &'static str,
    /// How the other session holds what the waiter waits for.
    holder: LockMode,
    /// Makes all rounds.
    rounds: fn(&mut PgConnection, &LockKey, LockBatch<'_>),
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
    let (met, notices) = thread::scope(|scope| {
        scope.spawn(move || hold(key, waiter.holder, &to_waiter, &from_waiter));
        let waiting = scope.spawn(move || wait(key, waiter, &to_holder, &from_holder));
        waiting.join().unwrap()
    });
    println!("{met:?}, notices: {notices}");
    assert!(met.timed_out >= time_outs() / SCENES, "{met:?}");
    let wrong = met.granted_not_held + met.timed_out_held + met.outer_lost;
    assert_eq!(wrong, 0, "{met:?}");
    // Giving back what is not held would write a warning, here and in the server's log.
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
) -> (Met, u32) {
    let mut counted = Counted::connect(&url());
    let mut met = Met::default();
    let mut round = |conn: &mut PgConnection, attempt: Attempt| {
        locked.recv().unwrap();
        holder.send(ToHolder::Waiting(Instant::now())).unwrap();
        let before = met.timed_out;
        attempt(conn, key, &mut met);
        let timed_out = met.timed_out > before;
        if timed_out {
            met.check_timed_out(conn, key, waiter.outer);
        }
        holder.send(ToHolder::Over { timed_out }).unwrap();
        met.timed_out < time_outs() / SCENES
    };
    (waiter.rounds)(&mut counted.conn, key, &mut round);
    (met, counted.notices())
}

/// Holds the lock and releases it when the waiter's limit passes, aiming better from round to round: each time-out lets the next release
/// come earlier and each grant later, so that about as many are granted as time out.
fn hold(key: &LockKey, mode: LockMode, waiter: &Sender<()>, said: &Receiver<ToHolder>) {
    const STEP_MICROS: i64 = 20;
    const JITTER_MICROS: i64 = 200;
    let mut conn = connect();
    let mut late_micros = 500;
    loop {
        // A transaction-level lock of the round before may be gone only with its transaction.
        let guard = conn.acquire_advisory_lock(key, block().mode(mode)).unwrap();
        // The waiter has gone: all rounds are over.
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
