//! Random bodies of three tasks: statements, streams and nested transactions, whose futures may be
//! dropped at any point. Whatever they do, the next user of the pool's only connection finds it
//! clean.

use std::time::Duration;

use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::{AsyncPooledAdvisoryLocking, LockError};
use futures_util::future::{BoxFuture, join_all};
use futures_util::{StreamExt, TryStreamExt};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbErr, Statement, StreamTrait, TransactionSession,
    TransactionTrait,
};
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key};

use crate::open::{NO_WAIT, poll_times, postgres, sqlite};

const SEEDS: u64 = 200;

/// A hang takes longer than any of these bodies.
const HANG: Duration = Duration::from_secs(60);

/// Random numbers from a seed, by xorshift.
struct Random(u64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns a number from zero to `end`, without `end`.
    const fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Awaits a future, or drops it at its first, second or third pending point.
    async fn run<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let times = match self.below(9) {
            times @ 0..3 => usize::try_from(times).unwrap() + 1,
            _ => usize::MAX,
        };
        poll_times(times, future).await
    }
}

/// Reads some rows of many.
async fn read(db: &impl StreamTrait, count: usize) -> Result<(), DbErr> {
    let sql = "WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < 2000) \
               SELECT i FROM numbers WHERE i <> $1";
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [7.into()]);
    let rows = db.stream_raw(statement).await?;
    rows.take(count).try_for_each(async |_| Ok(())).await
}

/// Does one thing, which may fail.
fn step<'a, C>(db: &'a C, random: &'a mut Random, depth: u32) -> BoxFuture<'a, ()>
where
    C: ConnectionTrait + StreamTrait + TransactionTrait<Transaction: StreamTrait + Sync>,
{
    Box::pin(async move {
        match random.below(if depth < 3 { 6 } else { 4 }) {
            0 => drop(random.run(db.execute_unprepared("SELECT 1")).await),
            1 => drop(random.run(db.execute_unprepared("no statement")).await),
            2 => {
                let count = [0, 3, 3000][usize::try_from(random.below(3)).unwrap()];
                drop(random.run(read(db, count)).await);
            }
            3 => tokio::task::yield_now().await,
            _ => {
                let Some(Ok(tx)) = random.run(db.begin()).await else {
                    return;
                };
                for _ in 0..random.below(4) {
                    step(&tx, random, depth + 1).await;
                }
                match random.below(3) {
                    0 => drop(random.run(tx.commit()).await),
                    1 => drop(random.run(tx.rollback()).await),
                    _ => drop(tx),
                }
            }
        }
    })
}

async fn task(db: &PinnedConnection, seed: u64) {
    let mut random = Random::new(seed);
    for _ in 0..5 {
        step(db, &mut random, 0).await;
    }
}

/// `vacuum` is a statement that fails inside a transaction.
async fn run_bodies(db: DatabaseConnection, vacuum: &str) {
    let mut observer = connect();
    for seed in 0..SEEDS {
        let (key, what) = (fresh_key(), format!("seed {seed}"));
        let mut random = Random::new(seed);
        let body = async |db: &mut PinnedConnection| {
            let db = &*db;
            join_all((0..3).map(|nr| task(db, seed * 3 + nr))).await;
            Ok::<_, DbErr>(())
        };
        let times = usize::try_from(random.below(120)).unwrap() + 1;
        let run = async {
            let ended = if random.below(2) == 0 {
                poll_times(times, db.with_advisory_xact_lock(&key, NO_WAIT, body)).await
            } else {
                poll_times(times, db.with_advisory_lock(&key, NO_WAIT, body)).await
            };
            // An aborted transaction is not committed, which is SeaORM's own error.
            if let Some(Err(error)) = ended {
                assert!(LockError::find(&error).is_none(), "{what}: {error:?}");
            }
            db.execute_unprepared(vacuum).await.expect(&what);
        };
        tokio::time::timeout(HANG, run).await.expect(&what);
        observer.assert_free(&key, &what).await;
    }
}

#[tokio::test]
async fn random_bodies_leave_nothing_on_postgres() {
    run_bodies(postgres(1).await, "VACUUM pg_catalog.pg_am").await;
}

#[tokio::test]
async fn random_bodies_leave_nothing_on_sqlite() {
    run_bodies(sqlite().await, "VACUUM").await;
}
