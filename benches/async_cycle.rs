//! Cost of one acquire and release through async clients, relative to hand-written statements.
//!
//! ```sh
//! scripts/postgres run -- cargo bench \
//!     --features diesel-async-postgres,bb8,sea-orm,deadpool-postgres,sqlx-postgres \
//!     --bench async_cycle
//! ```
//!
//! The baselines are those of `cycle.rs`, on the same connection or from the same pool. A cycle
//! with a pool includes the checkout, with the pool's default connection check, and the return.
//! sqlx's `PgAdvisoryLock` is a further contender. The baselines of a tokio-postgres `Client` are
//! unprepared, as its lock statements are, and those of deadpool-postgres use its cache.
//!
//! To add an adapter, add a group of contenders in `main`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench prints its results and ends at the first error"
)]

#[path = "shared/baseline.rs"]
mod baseline;
#[path = "shared/interleave.rs"]
mod interleave;
#[path = "shared/tokio_postgres.rs"]
mod tokio_postgres;

use advisory_locking::{AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockKey, LockOptions};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use sea_orm::SqlxPostgresConnector;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgAdvisoryLock, PgArgumentBuffer, PgPool, PgPoolOptions, PgTypeInfo, PgValueRef,
};
use sqlx::{Postgres, Row};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use baseline::{
    LockStatements, REFUSED_SIGNS, ReleaseReplyColumns, TryReplyColumns, number,
    pg_advisory_unlock, pg_try_advisory_lock,
};
use interleave::{Contender, run_interleaved};

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// A contender that awaits its cycles in one task, and then the return of its connection to a pool
/// of sqlx.
macro_rules! cycles {
    ($runtime:expr, $name:literal, $cycle:expr $(, $pool:expr)?) => {
        Contender::new($name, |count| {
            $runtime.block_on(async {
                for _ in 0..count {
                    $cycle.await;
                }
                $(returned(&$pool).await;)?
            });
        })
    };
}

/// Waits until the connection is in its pool. A task of sqlx returns it, with a round trip, after
/// the cycle. Otherwise the next contender would pay for the last return of this one.
async fn returned(pool: &PgPool) {
    while pool.num_idle() == 0 {
        tokio::task::yield_now().await;
    }
}

fn main() {
    let url = std::env::var("DATABASE_URL").expect("no DATABASE_URL: run it in scripts/postgres");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let key = LockKey::from("benches/async_cycle");
    let (number, statements) = (number(&key), LockStatements::new(&key));
    let sqlx_lock = PgAdvisoryLock::new("benches/async_cycle");
    let Clients {
        conn,
        bb8,
        sqlx,
        client,
        deadpool,
    } = Clients::new(&runtime, &url);
    let sea_orm = SqlxPostgresConnector::from_sqlx_postgres_pool(sqlx.clone());

    let samples = run_interleaved(&mut [
        cycles!(runtime, "hand-written, lock functions only", async {
            baseline_functions(&mut *conn.lock().await, number).await;
        }),
        cycles!(runtime, "hand-written, crate's statements", async {
            baseline_statements(&mut *conn.lock().await, statements, number).await;
        }),
        cycles!(runtime, "acquire_advisory_lock, release", async {
            acquire_and_release(&mut *conn.lock().await, &key).await;
        }),
        cycles!(runtime, "hand-written, lock functions only", async {
            baseline_functions(&mut bb8.get().await.unwrap(), number).await;
        }),
        cycles!(runtime, "hand-written, crate's statements", async {
            baseline_statements(&mut bb8.get().await.unwrap(), statements, number).await;
        }),
        cycles!(runtime, "acquire_advisory_lock, release", async {
            let guard = bb8.acquire_advisory_lock(&key, NO_WAIT).await;
            guard.unwrap().release().await.unwrap();
        }),
        cycles!(
            runtime,
            "hand-written, lock functions only",
            async {
                sqlx_baseline_functions(&sqlx, number).await;
            },
            sqlx
        ),
        cycles!(
            runtime,
            "hand-written, crate's statements",
            async {
                sqlx_baseline_statements(&sqlx, statements, number).await;
            },
            sqlx
        ),
        cycles!(
            runtime,
            "acquire_advisory_lock, release",
            async {
                let guard = sea_orm.acquire_advisory_lock(&key, NO_WAIT).await;
                guard.unwrap().release().await.unwrap();
            },
            sqlx
        ),
        cycles!(
            runtime,
            "sqlx's pool: acquire_advisory_lock, release",
            async {
                let guard = sqlx.acquire_advisory_lock(&key, NO_WAIT).await;
                guard.unwrap().release().await.unwrap();
            },
            sqlx
        ),
        cycles!(
            runtime,
            "sqlx's PgAdvisoryLock",
            async {
                let conn = sqlx.acquire().await.unwrap();
                let guard = sqlx_lock.acquire(conn).await.unwrap();
                guard.release_now().await.unwrap();
            },
            sqlx
        ),
        cycles!(runtime, "hand-written, lock functions only", async {
            tokio_postgres::functions(&*client.lock().await, number).await;
        }),
        cycles!(runtime, "hand-written, crate's statements", async {
            tokio_postgres::statements(&*client.lock().await, statements, number).await;
        }),
        cycles!(runtime, "acquire_advisory_lock, release", async {
            let mut client = client.lock().await;
            let guard = client.acquire_advisory_lock(&key, NO_WAIT).await;
            guard.unwrap().release().await.unwrap();
        }),
        cycles!(runtime, "hand-written, lock functions only", async {
            tokio_postgres::cached_functions(&deadpool, number).await;
        }),
        cycles!(runtime, "hand-written, crate's statements", async {
            tokio_postgres::cached_statements(&deadpool, statements, number).await;
        }),
        cycles!(runtime, "acquire_advisory_lock, release", async {
            let guard = deadpool.acquire_advisory_lock(&key, NO_WAIT).await;
            guard.unwrap().release().await.unwrap();
        }),
    ]);
    samples.print("an AsyncPgConnection", 0..3, &["functions", "statements"]);
    samples.print("from a bb8 pool", 3..6, &["functions", "statements"]);
    let baselines = ["functions", "statements", "crate"];
    samples.print("SeaORM and sqlx, from one pool", 6..11, &baselines);
    samples.print("a Client", 11..14, &["functions", "statements"]);
    samples.print(
        "from a deadpool-postgres pool",
        14..17,
        &["functions", "statements"],
    );
}

/// The clients under test, each with one connection.
struct Clients {
    conn: Mutex<AsyncPgConnection>,
    bb8: bb8::Pool<AsyncPgConnection>,
    sqlx: PgPool,
    client: Mutex<::tokio_postgres::Client>,
    deadpool: deadpool_postgres::Pool,
}

impl Clients {
    fn new(runtime: &Runtime, url: &str) -> Self {
        runtime.block_on(async {
            let manager = AsyncDieselConnectionManager::new(url);
            let bb8 = bb8::Pool::builder().max_size(1).build(manager);
            let sqlx = PgPoolOptions::new().max_connections(1).connect(url);
            Self {
                conn: Mutex::new(AsyncPgConnection::establish(url).await.unwrap()),
                bb8: bb8.await.unwrap(),
                sqlx: sqlx.await.unwrap(),
                client: Mutex::new(tokio_postgres::connect(url).await),
                deadpool: tokio_postgres::deadpool(url),
            }
        })
    }
}

async fn acquire_and_release(conn: &mut AsyncPgConnection, key: &LockKey) {
    let guard = conn.acquire_advisory_lock(key, NO_WAIT).await;
    guard.unwrap().release().await.unwrap();
}

async fn baseline_functions(conn: &mut AsyncPgConnection, key: i64) {
    let granted: bool = diesel::select(pg_try_advisory_lock(key))
        .get_result(conn)
        .await
        .unwrap();
    let released: bool = diesel::select(pg_advisory_unlock(key))
        .get_result(conn)
        .await
        .unwrap();
    assert!(granted && released);
}

async fn baseline_statements(conn: &mut AsyncPgConnection, statements: LockStatements, key: i64) {
    let granted = statements.try_acquire(key).get_result(conn);
    let granted: TryReplyColumns = granted.await.unwrap();
    let released = statements.release(key, granted).get_result(conn);
    let released: ReleaseReplyColumns = released.await.unwrap();
    assert_eq!((granted.0, released.0), (Some(1), Some(true)));
}

async fn sqlx_baseline_functions(pool: &PgPool, key: i64) {
    let mut conn = pool.acquire().await.unwrap();
    for sql in [
        "SELECT pg_try_advisory_lock($1)",
        "SELECT pg_advisory_unlock($1)",
    ] {
        let row = sqlx::query(sql).bind(key).fetch_one(&mut *conn).await;
        assert!(row.unwrap().get::<bool, _>(0));
    }
}

async fn sqlx_baseline_statements(pool: &PgPool, statements: LockStatements, key: i64) {
    let mut conn = pool.acquire().await.unwrap();
    let [refuse_stub, refuse_standby] = REFUSED_SIGNS;
    let granted = sqlx::query(statements.try_sql)
        .bind(refuse_stub)
        .bind(refuse_standby)
        .bind(key);
    let granted = granted.fetch_one(&mut *conn).await.unwrap();
    let (answer, pid): (Option<i32>, i32) = (granted.get(0), granted.get(1));
    let began: Timestamptz = granted.get(2);
    assert_eq!(answer, Some(1));
    let released = sqlx::query(statements.release_sql)
        .bind(pid)
        .bind(key)
        .bind(began);
    let released = released.fetch_one(&mut *conn).await.unwrap();
    assert_eq!(released.get::<Option<bool>, _>(0), Some(true));
}

/// A `timestamptz` as the integer of its binary format.
struct Timestamptz(i64);

impl sqlx::Type<Postgres> for Timestamptz {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl sqlx::Encode<'_, Postgres> for Timestamptz {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as sqlx::Encode<Postgres>>::encode(self.0, buffer)
    }
}

impl sqlx::Decode<'_, Postgres> for Timestamptz {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        <i64 as sqlx::Decode<Postgres>>::decode(value).map(Self)
    }
}
