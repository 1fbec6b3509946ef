//! `lock_timeout` and `statement_timeout` are the application's: the same after as before, and no limit to a wait.

use std::time::{Duration, Instant};

use advisory_locking::{
    AdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions, WaitStrategy,
};
use diesel::Connection;
use diesel::pg::PgConnection;

use super::deadlock::in_a_deadlock;
use super::support::{
    block, connect, connect_with, eventually, fresh_key, kind_of, number, poll, run, timeouts,
    while_it_waits,
};
use super::throwaway::Role;

const OWN: [&str; 2] = ["7s", "9s"];

#[test]
fn set_by_role() {
    let role = Role::create();
    role.set("lock_timeout = '7s'");
    role.set("statement_timeout = '9s'");
    every_ending(&mut connect_with(&role.login()), None);
}

#[test]
fn set_by_session() {
    let mut conn = connect();
    run(
        &mut conn,
        "SET lock_timeout = '7s'; SET statement_timeout = '9s'; SET deadlock_timeout = '20ms'",
    );
    every_ending(&mut conn, None);
}

#[test]
fn set_by_transaction() {
    let set = "SET LOCAL lock_timeout = '7s'; SET LOCAL statement_timeout = '9s'";
    every_ending(&mut connect(), Some(set));
}

/// How a lock is asked for. Gives back what it was granted.
type Take = fn(&mut PgConnection, &LockKey, LockOptions) -> Result<(), LockError>;

fn session_level(
    conn: &mut PgConnection,
    key: &LockKey,
    options: LockOptions,
) -> Result<(), LockError> {
    let options = options.allow_in_transaction();
    conn.acquire_advisory_lock(key, options)?.release()
}

fn transaction_level(
    conn: &mut PgConnection,
    key: &LockKey,
    options: LockOptions,
) -> Result<(), LockError> {
    conn.acquire_advisory_xact_lock(key, options)
}

/// Each way in which asking for a lock can end, with the settings looked at afterwards.
fn every_ending(conn: &mut PgConnection, set_local: Option<&str>) {
    let endings: [fn(&mut PgConnection, Take); 7] = [
        free,
        granted_while_polling,
        granted_while_blocking,
        timed_out_polling,
        timed_out_blocking,
        canceled,
        deadlocked,
    ];
    for (number, ending) in endings.into_iter().enumerate() {
        if set_local.is_none() {
            ending(conn, session_level);
            assert_eq!(timeouts(conn), OWN, "ending {number}, outside");
        }
        for (level, take) in [session_level as Take, transaction_level]
            .iter()
            .enumerate()
        {
            conn.transaction(|conn| {
                if let Some(set) = set_local {
                    run(conn, set);
                }
                ending(conn, *take);
                assert_eq!(timeouts(conn), OWN, "ending {number}, inside, {level}");
                diesel::QueryResult::Ok(())
            })
            .unwrap();
        }
    }
    let before = match set_local {
        Some(_) => timeouts(&mut connect()),
        None => OWN.map(str::to_owned),
    };
    assert_eq!(timeouts(conn), before);
}

fn free(conn: &mut PgConnection, take: Take) {
    for options in [LockOptions::no_wait(), poll(), block()] {
        take(conn, &fresh_key(), options).unwrap();
    }
}

fn granted_while_polling(conn: &mut PgConnection, take: Take) {
    let mut holder = connect();
    let key = fresh_key();
    let mut guard = Some(holder.acquire_advisory_lock(&key, poll()).unwrap());
    let pid = super::support::pid_of(conn);
    let mut observer = connect();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| take(conn, &key, poll()));
        let asks = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%pg_try%'"
        );
        eventually("a try", || number(&mut observer, &asks) > 0);
        drop(guard.take());
        asking.join().unwrap().unwrap();
    });
}

fn granted_while_blocking(conn: &mut PgConnection, take: Take) {
    let mut holder = connect();
    let key = fresh_key();
    let guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    while_it_waits(
        conn,
        |conn| take(conn, &key, block()),
        |_, _| guard.release().unwrap(),
    )
    .unwrap();
}

fn timed_out_polling(conn: &mut PgConnection, take: Take) {
    timed_out(conn, take, WaitStrategy::Poll);
}

fn timed_out_blocking(conn: &mut PgConnection, take: Take) {
    timed_out(conn, take, WaitStrategy::Block);
}

fn timed_out(conn: &mut PgConnection, take: Take, strategy: WaitStrategy) {
    let mut holder = connect();
    let key = fresh_key();
    let _guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let limited = LockOptions::wait_up_to(Duration::from_millis(20)).strategy(strategy);
    let ended = take(conn, &key, limited);
    assert_eq!(kind_of(ended), Some(LockErrorKind::TimedOut));
}

fn canceled(conn: &mut PgConnection, take: Take) {
    let mut holder = connect();
    let key = fresh_key();
    let _guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let ended = while_it_waits(
        conn,
        |conn| take(conn, &key, block()),
        |admin, waiter| run(admin, &format!("SELECT pg_cancel_backend({waiter})")),
    );
    assert_eq!(kind_of(ended), Some(LockErrorKind::Canceled));
}

fn deadlocked(conn: &mut PgConnection, take: Take) {
    let (first, second) = (fresh_key(), fresh_key());
    let options = LockOptions::no_wait().allow_in_transaction();
    let mut guard = conn.acquire_advisory_lock(&first, options).unwrap();
    in_a_deadlock(&first, &second, || {
        let ended = take(&mut guard, &second, block());
        assert_eq!(kind_of(ended), Some(LockErrorKind::Deadlock));
        guard.release().unwrap();
    });
}

#[test]
fn a_statement_timeout_of_ones_own_cuts_no_wait() {
    let mut holder = connect();
    let key = fresh_key();
    let _guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let mut conn = connect();
    run(&mut conn, "SET statement_timeout = '150ms'");
    let limit = Duration::from_secs(1);
    for strategy in [WaitStrategy::Block, WaitStrategy::Poll] {
        let began = Instant::now();
        let options = LockOptions::wait_up_to(limit).strategy(strategy);
        let ended = conn.acquire_advisory_lock(&key, options).map(drop);
        assert_eq!(kind_of(ended), Some(LockErrorKind::TimedOut));
        assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    }
}

#[test]
fn a_lock_timeout_of_ones_own_cuts_no_wait() {
    let mut holder = connect();
    let key = fresh_key();
    let guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let mut conn = connect();
    run(&mut conn, "SET lock_timeout = '50ms'");
    let forever = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    while_it_waits(
        &mut conn,
        |conn| conn.acquire_advisory_lock(&key, forever)?.release(),
        |observer, waiter| {
            let long = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {waiter} AND wait_event_type = 'Lock' \
                 AND query_start < clock_timestamp() - interval '400ms'"
            );
            eventually("a long wait", || number(observer, &long) > 0);
            guard.release().unwrap();
        },
    )
    .unwrap();
}
