//! The uncontended cycle, compared with the two bare lock functions: prepared, through the same
//! client library, on one connection that stays checked out. Measured with client and server on one
//! CPU, and on one CPU each, where the CPU affinity may be set.

use std::sync::Arc;

use advisory_locking::lock_manager::LockManager;
use advisory_locking::{LockKey, LockOptions};
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel_async::AsyncPgConnection;
use sea_orm::SqlxPostgresConnector;
use sqlx::{PgConnection as SqlxConnection, Row};
use tokio::runtime::{Builder, Runtime};

use crate::Scale;
use crate::baseline::{number, pg_advisory_unlock, pg_try_advisory_lock};
use crate::contenders::{Cycle, ExclusionCheck, Raw, Sqlx, bb8_pool, sqlx_pool};
use crate::cpu_affinity::{CpuPin, CpuPlacement};
use crate::interleave::{Contender, run_interleaved_for};
use crate::results::Results;
use crate::server::{runtime, url};

const NO_WAIT: LockOptions = LockOptions::no_wait();

pub(crate) fn measure(scale: &Scale, results: &mut Results) {
    let rounds = scale.pick(601, 11);
    for placement in CpuPlacement::ALL {
        let Some(_pin) = CpuPin::pin(placement) else {
            println!("uncontended, {}: not possible here", placement.name());
            continue;
        };
        measure_at(
            &format!("uncontended, {}", placement.name()),
            rounds,
            results,
        );
    }
}

fn measure_at(title: &str, rounds: usize, results: &mut Results) {
    blocking(title, rounds, results);
    let one_thread = Builder::new_current_thread().enable_all().build().unwrap();
    for (runtime, threads) in [(one_thread, "one thread"), (runtime(), "several threads")] {
        measure_async(&runtime, &format!("{title}, {threads}"), rounds, results);
    }
}

fn report(results: &mut Results, part: &str, rounds: usize, mut contenders: Vec<Contender<'_>>) {
    let taken = run_interleaved_for(rounds, &mut contenders);
    for (at, name) in taken.names().iter().enumerate() {
        results.add(part, name, "µs", taken.nanos(at) / 1e3);
        results.add(part, name, "ratio", taken.ratio(at, 0));
    }
}

fn blocking(title: &str, rounds: usize, results: &mut Results) {
    use diesel::RunQueryDsl;

    let manager = ConnectionManager::<PgConnection>::new(url());
    let pool = Pool::builder().max_size(2).build(manager).unwrap();
    let manager = LockManager::over_blocking_pool(pool.clone()).unwrap();
    let mut conn = pool.get().unwrap();
    let key = LockKey::from("benches/lock_manager/uncontended");
    let number = number(&key);
    let contenders = vec![
        Contender::new("the two functions", |count| {
            for _ in 0..count {
                let granted = diesel::select(pg_try_advisory_lock(number));
                let granted: bool = granted.get_result(&mut conn).unwrap();
                let released = diesel::select(pg_advisory_unlock(number));
                let released: bool = released.get_result(&mut conn).unwrap();
                assert!(granted && released);
            }
        }),
        Contender::new("LockManager, blocking", |count| {
            for _ in 0..count {
                let guard = manager.acquire_blocking(key.clone(), NO_WAIT).unwrap();
                guard.release_blocking().unwrap();
            }
        }),
    ];
    report(
        results,
        &format!("{title}, Diesel, r2d2"),
        rounds,
        contenders,
    );
}

/// Makes a contender whose cycles are awaited one after the other in a task, and then its end.
macro_rules! cycles {
    ($runtime:expr, $name:literal, $shared:expr, $cycle:expr $(, end: $end:expr)?) => {{
        let shared = Arc::new($shared);
        Contender::new($name, move |count| {
            let shared = Arc::clone(&shared);
            let cycles = async move {
                for _ in 0..count {
                    $cycle(&*shared).await;
                }
                $($end(&*shared).await;)?
            };
            $runtime.block_on($runtime.spawn(cycles)).unwrap();
        })
    }};
}

fn measure_async(runtime: &Runtime, title: &str, rounds: usize, results: &mut Results) {
    let key = LockKey::from("benches/lock_manager/uncontended");
    let number = number(&key);
    let _entered = runtime.enter();
    let (pool, sqlx, raw, sqlx_lock) = runtime.block_on(async {
        let lock = Sqlx::new("uncontended", 1).await;
        let raw = Raw::new("uncontended").await;
        (
            bb8_pool("uncontended").await,
            sqlx_pool("uncontended", 2).await,
            raw,
            lock,
        )
    });
    let conn = runtime.block_on(pool.dedicated_connection()).unwrap();
    let manager = LockManager::over_async_pool(pool).unwrap();
    let contenders = vec![
        cycles!(
            runtime,
            "the two functions",
            tokio::sync::Mutex::new(conn),
            move |conn| { functions(conn, number) }
        ),
        cycles!(runtime, "LockManager", (manager, key.clone()), ours),
    ];
    let part = format!("{title}, diesel-async, bb8");
    report(results, &part, rounds, contenders);

    let conn = runtime.block_on(sqlx.acquire()).unwrap().detach();
    let manager =
        LockManager::over_async_pool(SqlxPostgresConnector::from_sqlx_postgres_pool(sqlx)).unwrap();
    let contenders = vec![
        cycles!(
            runtime,
            "the two functions",
            tokio::sync::Mutex::new(conn),
            move |conn| { sqlx_functions(conn, number) }
        ),
        cycles!(runtime, "LockManager", (manager, key), ours),
        cycles!(
            runtime,
            "sqlx PgAdvisoryLock",
            sqlx_lock,
            async |lock: &Sqlx| {
                assert!(lock.cycle(&ExclusionCheck::default()).await);
            },
            end: Sqlx::returned
        ),
        cycles!(
            runtime,
            "the two functions, tokio-postgres",
            raw,
            async |raw: &Raw| {
                raw.acquire(number).await;
                raw.release(number).await;
            }
        ),
    ];
    let part = format!("{title}, SeaORM");
    report(results, &part, rounds, contenders);
}

async fn ours((manager, key): &(LockManager, LockKey)) {
    let guard = manager.acquire(key.clone(), NO_WAIT).await.unwrap();
    guard.release().await.unwrap();
}

async fn functions(conn: &tokio::sync::Mutex<AsyncPgConnection>, key: i64) {
    use diesel_async::RunQueryDsl;

    let conn = &mut *conn.lock().await;
    let granted = diesel::select(pg_try_advisory_lock(key)).get_result(conn);
    let granted: bool = granted.await.unwrap();
    let released = diesel::select(pg_advisory_unlock(key)).get_result(conn);
    let released: bool = released.await.unwrap();
    assert!(granted && released);
}

async fn sqlx_functions(conn: &tokio::sync::Mutex<SqlxConnection>, key: i64) {
    let conn = &mut *conn.lock().await;
    for sql in [
        "SELECT pg_try_advisory_lock($1)",
        "SELECT pg_advisory_unlock($1)",
    ] {
        let row = sqlx::query(sql).bind(key).fetch_one(&mut *conn).await;
        assert!(row.unwrap().get::<bool, _>(0));
    }
}
