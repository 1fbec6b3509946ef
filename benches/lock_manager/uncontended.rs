//! A lock that nobody else wants, against the two bare lock functions sent through the same client, prepared, on a connection that is kept,
//! as a locker keeps its own; on one processor and on one each, if they can be had.

use std::sync::Arc;

use advisory_locking::lock_manager::LockManager;
use advisory_locking::{LockKey, LockOptions};
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel_async::AsyncPgConnection;
use sea_orm::SqlxPostgresConnector;
use sea_orm::sqlx::{self, PgConnection as SqlxConnection, Row};
use tokio::runtime::{Builder, Runtime};

use crate::Scale;
use crate::baseline::{number, pg_advisory_unlock, pg_try_advisory_lock};
use crate::contenders::{Cycle, Raw, Room, Sqlx, bb8_pool, sqlx_pool};
use crate::figures::Figures;
use crate::interleave::{Contender, run_interleaved_for};
use crate::processor::{Place, Placed};
use crate::server::{runtime, url};

const NO_WAIT: LockOptions = LockOptions::no_wait();

pub(crate) fn measure(scale: &Scale, figures: &mut Figures) {
    let rounds = scale.of(601, 11);
    for place in Place::ALL {
        let Some(_placed) = Placed::take(place) else {
            println!("uncontended, {}: cannot be had here", place.name());
            continue;
        };
        measure_at(&format!("uncontended, {}", place.name()), rounds, figures);
    }
}

fn measure_at(title: &str, rounds: usize, figures: &mut Figures) {
    blocking(title, rounds, figures);
    let one_thread = Builder::new_current_thread().enable_all().build().unwrap();
    for (runtime, threads) in [(one_thread, "one thread"), (runtime(), "several threads")] {
        measure_async(&runtime, &format!("{title}, {threads}"), rounds, figures);
    }
}

fn report(figures: &mut Figures, part: &str, rounds: usize, mut contenders: Vec<Contender<'_>>) {
    let taken = run_interleaved_for(rounds, &mut contenders);
    for (at, name) in taken.names().iter().enumerate() {
        figures.add(part, name, "µs", taken.nanos(at) / 1e3);
        figures.add(part, name, "ratio", taken.ratio(at, 0));
    }
}

fn blocking(title: &str, rounds: usize, figures: &mut Figures) {
    use diesel::RunQueryDsl;

    let manager = ConnectionManager::<PgConnection>::new(url());
    let pool = Pool::builder().max_size(2).build(manager).unwrap();
    let locker = LockManager::over_blocking_pool(pool.clone()).unwrap();
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
                let guard = locker.acquire_blocking(key.clone(), NO_WAIT).unwrap();
                guard.release_blocking().unwrap();
            }
        }),
    ];
    report(
        figures,
        &format!("{title}, Diesel, r2d2"),
        rounds,
        contenders,
    );
}

/// A contender whose cycles are awaited, one after the other, in a task.
macro_rules! cycles {
    ($runtime:expr, $name:literal, $shared:expr, $cycle:expr) => {{
        let shared = Arc::new($shared);
        Contender::new($name, move |count| {
            let shared = Arc::clone(&shared);
            let cycles = async move {
                for _ in 0..count {
                    $cycle(&*shared).await;
                }
            };
            $runtime.block_on($runtime.spawn(cycles)).unwrap();
        })
    }};
}

fn measure_async(runtime: &Runtime, title: &str, rounds: usize, figures: &mut Figures) {
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
    let locker = LockManager::over_async_pool(pool).unwrap();
    let contenders = vec![
        cycles!(
            runtime,
            "the two functions",
            tokio::sync::Mutex::new(conn),
            move |conn| { functions(conn, number) }
        ),
        cycles!(runtime, "LockManager", (locker, key.clone()), ours),
    ];
    let part = format!("{title}, diesel-async, bb8");
    report(figures, &part, rounds, contenders);

    let conn = runtime.block_on(sqlx.acquire()).unwrap().detach();
    let locker =
        LockManager::over_async_pool(SqlxPostgresConnector::from_sqlx_postgres_pool(sqlx)).unwrap();
    let contenders = vec![
        cycles!(
            runtime,
            "the two functions",
            tokio::sync::Mutex::new(conn),
            move |conn| { sqlx_functions(conn, number) }
        ),
        cycles!(runtime, "LockManager", (locker, key), ours),
        cycles!(
            runtime,
            "sqlx PgAdvisoryLock",
            sqlx_lock,
            async |lock: &Sqlx| {
                assert!(lock.cycle(&Room::default()).await);
            }
        ),
        cycles!(
            runtime,
            "the two functions, tokio-postgres",
            raw,
            async |raw: &Raw| {
                raw.take(number).await;
                raw.give_back(number).await;
            }
        ),
    ];
    let part = format!("{title}, SeaORM");
    report(figures, &part, rounds, contenders);
}

async fn ours((locker, key): &(LockManager, LockKey)) {
    let guard = locker.acquire(key.clone(), NO_WAIT).await.unwrap();
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
