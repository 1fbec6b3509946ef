//! Time of one report while the lock table has 5,000 locks, relative to a bare read of `pg_locks`.
//!
//! ```sh
//! scripts/postgres run -- cargo bench --features diesel-postgres --bench report
//! ```
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench prints its results and ends at the first error"
)]

use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockKey, RawLockKey};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::{Connection, QueryableByName, RunQueryDsl, sql_query, sql_types};

const LOCKS: i64 = 5000;
const ROUNDS: usize = 51;
/// A report has at most that many rows.
const ROWS_OF_A_REPORT: usize = 1000;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = sql_types::BigInt)]
    count: i64,
}

fn main() {
    let url = std::env::var("DATABASE_URL").expect("no DATABASE_URL: run it in scripts/postgres");
    let mut holder = PgConnection::establish(&url).unwrap();
    let mut observer = PgConnection::establish(&url).unwrap();
    // Keys that no other bench uses.
    let RawLockKey::Single(number) = LockKey::from("benches/report").raw() else {
        panic!("a text has a key of one number");
    };
    let acquire = format!(
        "SELECT pg_advisory_lock(number) FROM generate_series({number}::int8, {}) number",
        number + LOCKS - 1
    );
    holder.batch_execute(&acquire).unwrap();

    let key = LockKey::from(number);
    let [bare, one, all] = median_of_rounds(
        |observer| {
            [
                timed(|| {
                    let query =
                        "SELECT count(*) AS count FROM pg_locks WHERE locktype = 'advisory'";
                    let row: Count = sql_query(query).get_result(observer).unwrap();
                    assert!(row.count >= LOCKS);
                }),
                timed(|| {
                    let report = observer.advisory_lock_holders(&key).unwrap();
                    assert_eq!(report.holders.len(), 1);
                }),
                timed(|| {
                    let reports = observer.advisory_locks().unwrap();
                    assert_eq!(reports.len(), ROWS_OF_A_REPORT);
                }),
            ]
        },
        &mut observer,
    );
    println!(
        "\n{LOCKS} locks held                 ms  ratio to\n{:>40}",
        "pg_locks"
    );
    for (name, time) in [
        ("SELECT count(*) FROM pg_locks", bare),
        ("advisory_lock_holders", one),
        ("advisory_locks", all),
    ] {
        let ratio = time.as_secs_f64() / bare.as_secs_f64();
        println!("{name:30} {:>8.2} {ratio:>8.2}", time.as_secs_f64() * 1e3);
    }
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median_of_rounds<const N: usize>(
    mut round: impl FnMut(&mut PgConnection) -> [Duration; N],
    observer: &mut PgConnection,
) -> [Duration; N] {
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round(observer)).collect();
    std::array::from_fn(|contender| {
        let mut times: Vec<_> = rounds.iter().map(|times| times[contender]).collect();
        times.sort_unstable();
        times[ROUNDS / 2]
    })
}
