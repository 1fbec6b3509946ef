//! What every module here needs: connections, and eyes on the server that do not go through the crate.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{LockError, LockErrorKind, LockKey, LockOptions, WaitStrategy};
use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, RunQueryDsl};

/// No test waits longer than this for what must come at once. It is long because machines stall.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL")
        .expect("no DATABASE_URL: run ./scripts/test, which starts a server and sets it")
}

pub(crate) fn connect() -> PgConnection {
    connect_with("")
}

/// Connects with further parameters, written as in a URL. The last of two values counts.
pub(crate) fn connect_with(parameters: &str) -> PgConnection {
    let url = url();
    let separator = if url.contains('?') { '&' } else { '?' };
    PgConnection::establish(&format!("{url}{separator}{parameters}")).unwrap()
}

pub(crate) fn pool_of(size: u32) -> Pool<ConnectionManager<PgConnection>> {
    Pool::builder()
        .max_size(size)
        .connection_timeout(PATIENCE)
        .build(ConnectionManager::new(url()))
        .unwrap()
}

/// A number that no other test of this run has.
pub(crate) fn fresh_number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A name for a database, a role, ... that no other test uses, and no other run on the same server.
pub(crate) fn fresh_name() -> String {
    format!("al_{}_{}", std::process::id(), fresh_number())
}

pub(crate) fn fresh_key() -> LockKey {
    LockKey::from(fresh_name())
}

/// Waits on the server, as long as is needed here.
pub(crate) fn block() -> LockOptions {
    LockOptions::wait_up_to(PATIENCE).strategy(WaitStrategy::Block)
}

/// Asks again and again, as long as is needed here.
pub(crate) fn poll() -> LockOptions {
    LockOptions::wait_up_to(PATIENCE).interval(Duration::from_millis(20))
}

pub(crate) fn kind_of<T>(result: Result<T, LockError>) -> Option<LockErrorKind> {
    result.err().map(|error| error.kind())
}

pub(crate) fn run(conn: &mut PgConnection, statements: &str) {
    conn.batch_execute(statements).expect(statements);
}

pub(crate) fn number(conn: &mut PgConnection, query: &str) -> i64 {
    let query = sql::<BigInt>(&format!("({query})::pg_catalog.int8"));
    diesel::select(query).get_result(conn).unwrap()
}

pub(crate) fn text(conn: &mut PgConnection, query: &str) -> String {
    let query = sql::<Text>(&format!("({query})::pg_catalog.text"));
    diesel::select(query).get_result(conn).unwrap()
}

pub(crate) fn pid_of(conn: &mut PgConnection) -> i64 {
    number(conn, "pg_backend_pid()")
}

pub(crate) fn setting(conn: &mut PgConnection, name: &str) -> String {
    text(conn, &format!("current_setting('{name}')"))
}

/// The two settings that a wait on the server changes.
pub(crate) fn timeouts(conn: &mut PgConnection) -> [String; 2] {
    ["lock_timeout", "statement_timeout"].map(|name| setting(conn, name))
}

fn rows_of(key: &LockKey) -> String {
    let (classid, objid, objsubid) = key.raw().pg_locks_columns();
    format!(
        "FROM pg_locks WHERE locktype = 'advisory' AND classid = {classid} AND objid = {objid} AND objsubid = {objsubid}"
    )
}

/// The modes in which a session holds a key, or nothing. Levels are not counted: the server does not show them.
pub(crate) fn held(observer: &mut PgConnection, key: &LockKey, pid: i64) -> String {
    let rows = rows_of(key);
    let modes = format!(
        "SELECT COALESCE(string_agg(mode, ' ' ORDER BY mode), '') {rows} AND granted AND pid = {pid}"
    );
    text(observer, &modes)
}

/// Whether no session holds a key or waits for it.
pub(crate) fn is_free(observer: &mut PgConnection, key: &LockKey) -> bool {
    number(observer, &format!("SELECT count(*) {}", rows_of(key))) == 0
}

pub(crate) fn is_alive(observer: &mut PgConnection, pid: i64) -> bool {
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    number(observer, &sessions) > 0
}

pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Until the server shows that a session waits for a lock.
pub(crate) fn until_it_waits(observer: &mut PgConnection, pid: i64) {
    let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
    eventually("a waiter", || number(observer, &waits) > 0);
}

/// Runs `ask`, which is to wait for a lock, and `meanwhile` as soon as the server shows the waiter.
pub(crate) fn while_it_waits<T: Send>(
    conn: &mut PgConnection,
    ask: impl FnOnce(&mut PgConnection) -> T + Send,
    meanwhile: impl FnOnce(&mut PgConnection, i64),
) -> T {
    let waiter = pid_of(conn);
    let mut observer = connect();
    thread::scope(|scope| {
        let asking = scope.spawn(|| ask(conn));
        let _end = EndOnPanic(waiter);
        until_it_waits(&mut observer, waiter);
        meanwhile(&mut observer, waiter);
        asking.join().unwrap()
    })
}

/// Ends a session when a test fails, so that whoever waits on it can be joined.
struct EndOnPanic(i64);

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            run(
                &mut connect(),
                &format!("SELECT pg_terminate_backend({})", self.0),
            );
        }
    }
}

pub(crate) fn terminate(observer: &mut PgConnection, pid: i64) {
    run(observer, &format!("SELECT pg_terminate_backend({pid})"));
    eventually("the end of a session", || !is_alive(observer, pid));
}
