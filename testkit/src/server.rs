//! The test server: its address, connections, and names and keys that no other test uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{LockError, LockErrorKind, LockKey, LockOptions, WaitStrategy};
use diesel::Connection;
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};

/// Limit of every wait for an event that must occur. It is long because loaded machines stall.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the address of the test server.
pub fn url() -> String {
    std::env::var("DATABASE_URL")
        .expect("no DATABASE_URL: run ./scripts/test, which starts a server and sets it")
}

/// Adds parameters to an address. The last of two values counts.
pub fn with_parameters(url: &str, parameters: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{parameters}")
}

/// Replaces the database of an address, for clients that do not accept a second database name.
pub fn with_database(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (server, _) = rest.split_once('/').expect("a URL with a database");
    format!("{scheme}://{server}/{name}")
}

pub fn connect() -> PgConnection {
    connect_to(&url())
}

/// Connects to a server, which may still be starting.
pub fn connect_to(url: &str) -> PgConnection {
    let began = Instant::now();
    loop {
        match PgConnection::establish(url) {
            Ok(conn) => return conn,
            Err(error) => assert!(began.elapsed() < TIMEOUT, "{error}"),
        }
        thread::sleep(pause(began));
    }
}

/// Connects to the test server with further parameters.
pub fn connect_with(parameters: &str) -> PgConnection {
    PgConnection::establish(&with_parameters(&url(), parameters)).unwrap()
}

pub fn pool_of(size: u32) -> Pool<ConnectionManager<PgConnection>> {
    Pool::builder()
        .max_size(size)
        .connection_timeout(TIMEOUT)
        .build(ConnectionManager::new(url()))
        .unwrap()
}

/// Returns a number that no other test of this process has.
pub fn fresh_number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Returns a name that no other test uses, and no other run on the same server.
pub fn fresh_name() -> String {
    format!("al_{}_{}", std::process::id(), fresh_number())
}

/// Returns a positive integer that no other test uses, and no other run on the same server.
pub fn fresh_integer() -> i64 {
    i64::from(std::process::id()) << 20 | i64::from(fresh_number())
}

/// Returns two integers that no other test uses, and no other run on the same server: the first is
/// positive, the second negative.
pub fn fresh_pair() -> (i32, i32) {
    let process = i32::try_from(std::process::id()).unwrap();
    (process, i32::MIN + i32::try_from(fresh_number()).unwrap())
}

pub fn fresh_key() -> LockKey {
    LockKey::from(fresh_name())
}

/// Options that wait on the server.
pub fn block() -> LockOptions {
    LockOptions::wait_up_to(TIMEOUT).strategy(WaitStrategy::Block)
}

/// Options that poll.
pub fn poll() -> LockOptions {
    LockOptions::wait_up_to(TIMEOUT).interval(Duration::from_millis(20))
}

pub fn kind_of<T>(result: Result<T, LockError>) -> Option<LockErrorKind> {
    result.err().map(|error| error.kind())
}

/// Returns the pause before the next check of a condition. It grows with the time since the first
/// one, so that a long wait does not keep the server busy.
pub fn pause(began: Instant) -> Duration {
    (began.elapsed() / 8).clamp(Duration::from_millis(2), Duration::from_millis(50))
}

/// Blocks until a condition is true.
#[track_caller]
pub fn eventually(event: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < TIMEOUT, "never occurred: {event}");
        thread::sleep(pause(began));
    }
}

/// Waits until a condition is true, without blocking the executor.
pub async fn eventually_async(event: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < TIMEOUT, "never occurred: {event}");
        tokio::time::sleep(pause(began)).await;
    }
}

/// Number of timeouts that race with the grant in each test: 500, or the value of
/// `ADVISORY_LOCKING_RACED_TIME_OUTS`.
pub fn raced_time_outs() -> u32 {
    number_in("ADVISORY_LOCKING_RACED_TIME_OUTS", 500)
}

/// Number of waits that each test drops with their connection: 5, or the value of
/// `ADVISORY_LOCKING_DROPPED_WAITS`.
pub fn dropped_waits() -> u32 {
    number_in("ADVISORY_LOCKING_DROPPED_WAITS", 5)
}

/// Number of reports beside contended cycles: 500, or the value of `ADVISORY_LOCKING_REPORTS`.
pub fn reports() -> u32 {
    number_in("ADVISORY_LOCKING_REPORTS", 500)
}

fn number_in(variable: &str, default: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
        Err(_) => default,
    }
}
