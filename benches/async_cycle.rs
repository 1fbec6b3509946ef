//! What one acquire and release costs an async client, against the same two statements by hand, prepared and cached in the same way,
//! on the same connection or from the same pool: `scripts/postgres run -- cargo bench --all-features --bench async_cycle`.
//!
//! By hand as in `cycle.rs`. From a pool, a cycle begins with the checkout, with the check that the pool makes by default, and ends when
//! the connection is back. sqlx's own lock is there to compare with: it has a pool and statements of its own.
//!
//! A further adapter is a further group of contenders in `main`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench prints, and what goes wrong in it ends it"
)]

#[path = "shared/by_hand.rs"]
mod by_hand;
#[path = "shared/rounds.rs"]
mod rounds;

use advisory_locking::{AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockKey, LockOptions};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use sea_orm::sqlx::postgres::{PgAdvisoryLock, PgPool, PgPoolOptions};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use by_hand::{Texts, number, pg_advisory_unlock, pg_try_advisory_lock};
use rounds::{Contender, take_turns};

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// A contender whose cycle is awaited, so many times, with no task in between.
macro_rules! cycles {
    ($runtime:expr, $name:literal, $cycle:expr) => {
        Contender::new($name, |count| {
            $runtime.block_on(async {
                for _ in 0..count {
                    $cycle.await;
                }
            });
        })
    };
}

fn main() {
    let url = std::env::var("DATABASE_URL").expect("no DATABASE_URL: run it in scripts/postgres");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let key = LockKey::from("benches/async_cycle");
    let (number, texts) = (number(&key), Texts::new(&key));
    let sqlx_lock = PgAdvisoryLock::new("benches/async_cycle");
    let Clients { conn, bb8, sqlx } = Clients::new(&runtime, &url);

    let taken = take_turns(&mut [
        cycles!(runtime, "the two functions by hand", async {
            functions_by_hand(&mut *conn.lock().await, number).await;
        }),
        cycles!(runtime, "our two texts by hand", async {
            texts_by_hand(&mut *conn.lock().await, texts, number).await;
        }),
        cycles!(runtime, "acquire_advisory_lock, release", async {
            ours(&mut *conn.lock().await, &key).await;
        }),
        cycles!(runtime, "the two functions by hand", async {
            functions_by_hand(&mut bb8.get().await.unwrap(), number).await;
        }),
        cycles!(runtime, "our two texts by hand", async {
            texts_by_hand(&mut bb8.get().await.unwrap(), texts, number).await;
        }),
        cycles!(runtime, "acquire_advisory_lock, release", async {
            let guard = bb8.acquire_advisory_lock(&key, NO_WAIT).await;
            guard.unwrap().release().await.unwrap();
        }),
        cycles!(runtime, "sqlx's PgAdvisoryLock", async {
            let conn = sqlx.acquire().await.unwrap();
            let guard = sqlx_lock.acquire(conn).await.unwrap();
            guard.release_now().await.unwrap();
        }),
    ]);
    taken.print("an AsyncPgConnection", 0..3, &["functions", "our texts"]);
    taken.print("from a bb8 pool", 3..6, &["functions", "our texts"]);
    taken.print("from a sqlx pool", 6..7, &["sqlx's lock"]);
}

/// One connection each, whatever it is in.
struct Clients {
    conn: Mutex<AsyncPgConnection>,
    bb8: bb8::Pool<AsyncPgConnection>,
    sqlx: PgPool,
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
            }
        })
    }
}

async fn ours(conn: &mut AsyncPgConnection, key: &LockKey) {
    let guard = conn.acquire_advisory_lock(key, NO_WAIT).await;
    guard.unwrap().release().await.unwrap();
}

async fn functions_by_hand(conn: &mut AsyncPgConnection, key: i64) {
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

async fn texts_by_hand(conn: &mut AsyncPgConnection, texts: Texts, key: i64) {
    let granted = texts.ask(key).get_result(conn);
    let (granted, pid): (Option<bool>, i32) = granted.await.unwrap();
    let released = texts.release(key, pid).get_result(conn);
    let (released, _): (Option<bool>, i32) = released.await.unwrap();
    assert_eq!((granted, released), (Some(true), Some(true)));
}
