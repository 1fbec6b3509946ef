//! The contenders. A cycle of each acquires the lock, runs a body and releases the lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use advisory_locking::lock_manager::{LockManager, LockManagerOptions};
use advisory_locking::{LockKey, LockOptions, WaitStrategy};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use sqlx::postgres::{PgAdvisoryLock, PgPool, PgPoolOptions};
use tokio::sync::Mutex;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use crate::server::{connect, url_as};

/// A check that two holders never overlap, and the flag that ends a measurement.
#[derive(Default)]
pub(crate) struct ExclusionCheck {
    taken: AtomicBool,
    over: AtomicBool,
}

impl ExclusionCheck {
    /// Enters and leaves the body; panics if another holder is in it.
    pub(crate) fn enter_and_leave(&self) {
        assert!(
            !self.taken.swap(true, Ordering::AcqRel),
            "two holders at once"
        );
        self.taken.store(false, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A contender.
pub(crate) trait Cycle: Send + Sync + 'static {
    /// Runs one cycle. Returns false if the measurement ended before the lock was granted.
    fn cycle(&self, check: &ExclusionCheck) -> impl Future<Output = bool> + Send;
}

/// The lock manager of this crate.
pub(crate) struct Ours {
    pub(crate) manager: LockManager,
    pub(crate) key: LockKey,
    pub(crate) options: LockOptions,
    /// The time that each holder keeps the lock.
    pub(crate) hold_time: Duration,
}

impl Ours {
    pub(crate) async fn new(name: &str, options: LockManagerOptions, wait: LockOptions) -> Self {
        Self {
            manager: LockManager::over_async_pool_with(bb8_pool(name).await, options).unwrap(),
            key: LockKey::from(("benches/lock_manager", "hot")),
            options: wait,
            hold_time: Duration::ZERO,
        }
    }
}

impl Cycle for Ours {
    async fn cycle(&self, check: &ExclusionCheck) -> bool {
        let guard = self.manager.acquire(self.key.clone(), self.options).await;
        let guard = guard.unwrap();
        if self.hold_time.is_zero() {
            check.enter_and_leave();
        } else {
            tokio::time::sleep(self.hold_time).await;
        }
        guard.release().await.unwrap();
        true
    }
}

pub(crate) fn poll() -> LockOptions {
    LockOptions::wait_forever()
}

pub(crate) fn block() -> LockOptions {
    LockOptions::wait_forever().strategy(WaitStrategy::Block)
}

/// Returns a pool that is large enough for each lock manager of this bench.
pub(crate) async fn bb8_pool(name: &str) -> bb8::Pool<AsyncPgConnection> {
    let manager = AsyncDieselConnectionManager::new(url_as(name));
    bb8::Pool::builder()
        .max_size(4)
        .build(manager)
        .await
        .unwrap()
}

/// sqlx's own lock, with a connection for each waiter.
pub(crate) struct Sqlx {
    pool: PgPool,
    lock: PgAdvisoryLock,
}

impl Sqlx {
    pub(crate) async fn new(name: &str, connections: u32) -> Self {
        Self {
            pool: sqlx_pool(name, connections).await,
            lock: PgAdvisoryLock::new("benches/lock_manager/hot"),
        }
    }

    /// Waits until a connection is in the pool. A task returns it, with a round trip, after the
    /// cycle. Otherwise the next contender would pay for the last return of this one.
    pub(crate) async fn returned(&self) {
        while self.pool.num_idle() == 0 {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) async fn sqlx_pool(name: &str, connections: u32) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(connections);
    pool.connect(&url_as(name)).await.unwrap()
}

impl Cycle for Sqlx {
    async fn cycle(&self, check: &ExclusionCheck) -> bool {
        let conn = self.pool.acquire().await.unwrap();
        if check.is_over() {
            return false;
        }
        let guard = self.lock.acquire(conn).await.unwrap();
        check.enter_and_leave();
        guard.release_now().await.unwrap();
        true
    }
}

/// The two lock functions, prepared, on one connection.
pub(crate) struct Raw {
    client: Client,
    try_acquire: Statement,
    release: Statement,
}

impl Raw {
    pub(crate) async fn new(name: &str) -> Self {
        let client = connect(name).await;
        let try_acquire = client.prepare("SELECT pg_try_advisory_lock($1)").await;
        let release = client.prepare("SELECT pg_advisory_unlock($1)").await;
        Self {
            try_acquire: try_acquire.unwrap(),
            release: release.unwrap(),
            client,
        }
    }

    pub(crate) async fn acquire(&self, key: i64) {
        let row = self
            .client
            .query_one(&self.try_acquire, &[&key])
            .await
            .unwrap();
        assert!(row.get::<_, bool>(0));
    }

    pub(crate) async fn release(&self, key: i64) {
        let row = self.client.query_one(&self.release, &[&key]).await.unwrap();
        assert!(row.get::<_, bool>(0));
    }
}

/// A mutex before one connection. No other session contends, and each cycle takes two round trips.
pub(crate) struct Queue(Mutex<Raw>);

impl Queue {
    pub(crate) async fn new(name: &str) -> Self {
        Self(Mutex::new(Raw::new(name).await))
    }
}

impl Cycle for Queue {
    async fn cycle(&self, check: &ExclusionCheck) -> bool {
        let raw = self.0.lock().await;
        if check.is_over() {
            return false;
        }
        raw.acquire(1).await;
        check.enter_and_leave();
        raw.release(1).await;
        true
    }
}

/// The statements of PormG, which computes the key in each statement.
pub(crate) struct Pormg {
    idle: Mutex<tokio::sync::mpsc::Receiver<Client>>,
    back: tokio::sync::mpsc::Sender<Client>,
    waits: WaitStrategy,
}

macro_rules! with_key {
    ($function:literal) => {
        concat!(
            "SELECT ",
            $function,
            "((('x' || substr(md5($1), 1, 16))::bit(64))::bigint)"
        )
    };
}

impl Pormg {
    pub(crate) async fn new(name: &str, connections: usize, waits: WaitStrategy) -> Self {
        let (back, idle) = tokio::sync::mpsc::channel(connections);
        for _ in 0..connections {
            back.send(connect(name).await).await.unwrap();
        }
        Self {
            idle: Mutex::new(idle),
            back,
            waits,
        }
    }

    async fn ask<T>(client: &Client, sql: &str, read: impl Fn(&tokio_postgres::Row) -> T) -> T {
        let key: (&(dyn tokio_postgres::types::ToSql + Sync), Type) = (&"hot", Type::TEXT);
        let rows = client.query_typed(sql, &[key]).await.unwrap();
        read(&rows[0])
    }

    /// With `wait = true, interval_ms = 100`.
    async fn poll(client: &Client, check: &ExclusionCheck) -> bool {
        let ask = with_key!("pg_try_advisory_lock");
        while !Self::ask(client, ask, |row| row.get(0)).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if check.is_over() {
                return false;
            }
        }
        true
    }

    async fn block(client: &Client) {
        let before = client.simple_query("SHOW statement_timeout").await;
        assert!(before.is_ok());
        let limit = "SET statement_timeout = 60000";
        client.batch_execute(limit).await.unwrap();
        Self::ask(client, with_key!("pg_advisory_lock"), |_| ()).await;
        let restored = "SET statement_timeout = '0'";
        client.batch_execute(restored).await.unwrap();
    }
}

impl Cycle for Pormg {
    async fn cycle(&self, check: &ExclusionCheck) -> bool {
        let client = self.idle.lock().await.recv().await.unwrap();
        let granted = !check.is_over()
            && match self.waits {
                WaitStrategy::Block => {
                    Self::block(&client).await;
                    true
                }
                _ => Self::poll(&client, check).await,
            };
        if granted {
            check.enter_and_leave();
            assert!(Self::ask(&client, with_key!("pg_advisory_unlock"), |row| row.get(0)).await);
        }
        self.back.send(client).await.unwrap();
        granted
    }
}

/// Runs cycles in several tasks for a time, and returns the cycles per second.
pub(crate) async fn cycles_per_second(who: &Arc<impl Cycle>, tasks: usize, time: Duration) -> f64 {
    let check = Arc::new(ExclusionCheck::default());
    let counted: Vec<_> = (0..tasks)
        .map(|_| {
            let (who, check) = (Arc::clone(who), Arc::clone(&check));
            tokio::spawn(async move {
                let mut count = 0_u32;
                while !check.is_over() {
                    let done = who.cycle(&check).await;
                    count += u32::from(done && !check.is_over());
                }
                count
            })
        })
        .collect();
    let began = std::time::Instant::now();
    tokio::time::sleep(time).await;
    check.end();
    let time = began.elapsed();
    let mut count = 0;
    for counted in counted {
        count += counted.await.unwrap();
    }
    f64::from(count) / time.as_secs_f64()
}
