//! The session's own
//! [`lock_timeout` and `statement_timeout`](https://www.postgresql.org/docs/current/runtime-config-client.html):
//! unchanged by every call, and without effect on its waits.

use std::time::{Duration, Instant};

use advisory_locking::{
    AdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions, WaitStrategy,
};
use diesel::Connection;
use diesel::pg::PgConnection;
use testkit::observer::{Observe, while_waiting};
use testkit::server::{block, connect, connect_with, eventually, fresh_key, kind_of, poll};
use testkit::temp::TempRole;

use super::deadlock::in_a_deadlock;

const SESSION_SETTINGS: [&str; 3] = ["7s", "9s", "0"];

/// The settings that a wait changes, as text. A server before 14 does not have the last one.
fn timeouts(conn: &mut PgConnection) -> [String; 3] {
    let names = [
        "lock_timeout",
        "statement_timeout",
        "client_connection_check_interval",
    ];
    names.map(|name| {
        conn.text(&format!(
            "COALESCE(pg_catalog.current_setting('{name}', true), '0')"
        ))
    })
}

#[test]
fn set_by_role() {
    let role = TempRole::create();
    role.set("lock_timeout = '7s'");
    role.set("statement_timeout = '9s'");
    all_outcomes(&mut connect_with(&role.login()), None);
}

#[test]
fn set_by_session() {
    let mut conn = connect();
    conn.run(
        "SET lock_timeout = '7s'; SET statement_timeout = '9s'; SET deadlock_timeout = '20ms'",
    );
    all_outcomes(&mut conn, None);
}

#[test]
fn set_by_transaction() {
    let set = "SET LOCAL lock_timeout = '7s'; SET LOCAL statement_timeout = '9s'";
    all_outcomes(&mut connect(), Some(set));
}

/// Acquires a lock, and releases it if it was granted.
type AcquireFn = fn(&mut PgConnection, &LockKey, LockOptions) -> Result<(), LockError>;

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

/// Produces each outcome of an acquire, and asserts the settings after it.
fn all_outcomes(conn: &mut PgConnection, set_local: Option<&str>) {
    let outcomes: [fn(&mut PgConnection, AcquireFn); 7] = [
        free,
        granted_while_polling,
        granted_while_blocking,
        timed_out_polling,
        timed_out_blocking,
        canceled,
        deadlocked,
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        if set_local.is_none() {
            outcome(conn, session_level);
            assert_eq!(
                timeouts(conn),
                SESSION_SETTINGS,
                "outcome {number}, outside"
            );
        }
        for (scope, acquire) in [session_level as AcquireFn, transaction_level]
            .iter()
            .enumerate()
        {
            conn.transaction(|conn| {
                if let Some(set) = set_local {
                    conn.run(set);
                }
                outcome(conn, *acquire);
                assert_eq!(
                    timeouts(conn),
                    SESSION_SETTINGS,
                    "outcome {number}, inside, {scope}"
                );
                diesel::QueryResult::Ok(())
            })
            .unwrap();
        }
    }
    let before = match set_local {
        Some(_) => timeouts(&mut connect()),
        None => SESSION_SETTINGS.map(str::to_owned),
    };
    assert_eq!(timeouts(conn), before);
}

fn free(conn: &mut PgConnection, acquire: AcquireFn) {
    for options in [LockOptions::no_wait(), poll(), block()] {
        acquire(conn, &fresh_key(), options).unwrap();
    }
}

fn granted_while_polling(conn: &mut PgConnection, acquire: AcquireFn) {
    let mut holder = connect();
    let key = fresh_key();
    let mut guard = Some(holder.acquire_advisory_lock(&key, poll()).unwrap());
    let pid = conn.pid();
    let mut observer = connect();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| acquire(conn, &key, poll()));
        let asks = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%pg_try%'"
        );
        eventually("a try", || observer.number(&asks) > 0);
        drop(guard.take());
        asking.join().unwrap().unwrap();
    });
}

fn granted_while_blocking(conn: &mut PgConnection, acquire: AcquireFn) {
    let mut holder = connect();
    let key = fresh_key();
    let guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    while_waiting(
        conn,
        |conn| acquire(conn, &key, block()),
        |_, _| guard.release().unwrap(),
    )
    .unwrap();
}

fn timed_out_polling(conn: &mut PgConnection, acquire: AcquireFn) {
    timed_out(conn, acquire, WaitStrategy::Poll);
}

fn timed_out_blocking(conn: &mut PgConnection, acquire: AcquireFn) {
    timed_out(conn, acquire, WaitStrategy::Block);
}

fn timed_out(conn: &mut PgConnection, acquire: AcquireFn, strategy: WaitStrategy) {
    let mut holder = connect();
    let key = fresh_key();
    let _guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let limited = LockOptions::wait_up_to(Duration::from_millis(20)).strategy(strategy);
    let ended = acquire(conn, &key, limited);
    assert_eq!(kind_of(ended), Some(LockErrorKind::TimedOut));
}

fn canceled(conn: &mut PgConnection, acquire: AcquireFn) {
    let mut holder = connect();
    let key = fresh_key();
    let _guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let ended = while_waiting(
        conn,
        |conn| acquire(conn, &key, block()),
        |admin, waiter| admin.cancel(waiter),
    );
    assert_eq!(kind_of(ended), Some(LockErrorKind::Canceled));
}

fn deadlocked(conn: &mut PgConnection, acquire: AcquireFn) {
    let (first, second) = (fresh_key(), fresh_key());
    let options = LockOptions::no_wait().allow_in_transaction();
    let mut guard = conn.acquire_advisory_lock(&first, options).unwrap();
    in_a_deadlock(&first, &second, || {
        let ended = acquire(&mut guard, &second, block());
        assert_eq!(kind_of(ended), Some(LockErrorKind::Deadlock));
        guard.release().unwrap();
    });
}

#[test]
fn the_sessions_statement_timeout_does_not_shorten_a_wait() {
    let mut holder = connect();
    let key = fresh_key();
    let _guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let mut conn = connect();
    conn.run("SET statement_timeout = '150ms'");
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
fn the_sessions_lock_timeout_does_not_shorten_a_wait() {
    let mut holder = connect();
    let key = fresh_key();
    let guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let mut conn = connect();
    conn.run("SET lock_timeout = '50ms'");
    let forever = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    while_waiting(
        &mut conn,
        |conn| conn.acquire_advisory_lock(&key, forever)?.release(),
        |observer, waiter| {
            let long = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {waiter} AND wait_event_type = 'Lock' \
                 AND query_start < clock_timestamp() - interval '400ms'"
            );
            eventually("a long wait", || observer.number(&long) > 0);
            guard.release().unwrap();
        },
    )
    .unwrap();
}

/// Other platforms reject every interval but 0, which would fail the wait.
#[test]
fn wait_checks_its_connection_where_the_platform_can() {
    let mut holder = connect();
    let key = fresh_key();
    let guard = holder.acquire_advisory_lock(&key, poll()).unwrap();
    let waited = while_waiting(
        &mut connect(),
        |conn| conn.acquire_advisory_lock(&key, block())?.release(),
        |observer, waiter| {
            let script = observer.text(&format!(
                "SELECT query FROM pg_stat_activity WHERE pid = {waiter}"
            ));
            let (_, condition) = script.split_once("AND pg_catalog.version() ").unwrap();
            let (condition, _) = condition.split_once(" THEN").unwrap();
            let platforms = [
                (
                    "PostgreSQL 14.19 (Debian 14.19-1) on x86_64-pc-linux-gnu, compiled by gcc",
                    1,
                ),
                (
                    "PostgreSQL 14.19 (Homebrew) on aarch64-apple-darwin23.6.0, compiled by",
                    0,
                ),
                (
                    "PostgreSQL 14.19 on amd64-portbld-freebsd14.1, compiled by clang",
                    0,
                ),
                (
                    "PostgreSQL 15.14 (Homebrew) on aarch64-apple-darwin23.6.0, compiled by",
                    1,
                ),
                (
                    "PostgreSQL 18.0 on x86_64-unknown-openbsd7.6, compiled by clang",
                    1,
                ),
                (
                    "PostgreSQL 18.0 on x86_64-windows, compiled by msvc-19.43",
                    0,
                ),
            ];
            for (version, checks) in platforms {
                let matches = format!("(('{version}' {condition})::int)");
                assert_eq!(observer.number(&matches), checks, "{version}");
            }
            guard.release().unwrap();
        },
    );
    waited.unwrap();
}
