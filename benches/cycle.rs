//! What one acquire and release costs through Diesel, against the same two statements by hand on the same connection, prepared
//! and cached in the same way: `scripts/postgres run -- cargo bench --all-features --bench cycle`.
//!
//! By hand twice: the two lock functions alone, and our own texts, which also ask which session answers and whether a transaction
//! is open. The difference between those two is the price of what we promise; the rest is this crate's own.
//!
//! On several processors, most of a round trip is one waking the other: `taskset -c 1` before the command shows the work.
//!
//! The contenders take turns in short rounds, and what is compared is the ratio within a round, so that a machine that slows
//! down slows down all of them.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench prints, and what goes wrong in it ends it"
)]

use std::marker::PhantomData;
use std::time::Instant;

use advisory_locking::session::{
    Backend, Bind, LockSession, Row, SessionError, Statement, TransactionState,
};
use advisory_locking::{AdvisoryLocking, LockKey, LockOptions};
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable};
use diesel::{Connection, QueryResult, RunQueryDsl};

const ROUNDS: usize = 101;
const CYCLES: u32 = 100;

#[diesel::declare_sql_function]
extern "SQL" {
    fn pg_try_advisory_lock(key: BigInt) -> Bool;
    fn pg_advisory_unlock(key: BigInt) -> Bool;
}

fn main() {
    let url = std::env::var("DATABASE_URL").expect("no DATABASE_URL: run it in scripts/postgres");
    let mut conn = PgConnection::establish(&url).unwrap();
    let key = LockKey::from("benches/cycle");
    let advisory_locking::KeySpace::Single(number) = key.space() else {
        panic!("the key is a pair")
    };
    let [try_text, release_text] = statements_of_a_cycle(&key);

    let mut contenders: [Contender<'_>; 3] = [
        (
            "the two functions by hand",
            Box::new(|conn| by_hand(conn, number)),
        ),
        (
            "our two texts by hand",
            Box::new(|conn| our_texts_by_hand(conn, number, try_text, release_text)),
        ),
        (
            "acquire_advisory_lock, release",
            Box::new(|conn| ours(conn, &key)),
        ),
    ];
    let nanos = take_turns(&mut conn, &mut contenders);

    println!("{:<32} {:>9}  ratio to", "cycle", "ns");
    println!(
        "{:<32} {:>9} {:>10} {:>10}",
        "", "", "functions", "our texts"
    );
    for (nanos_of_one, (name, _)) in nanos.iter().zip(&contenders) {
        let ratio_to = |other: &[f64]| {
            let ratios = nanos_of_one.iter().zip(other);
            median(ratios.map(|(one, other)| one / other).collect())
        };
        let (functions, texts) = (ratio_to(&nanos[0]), ratio_to(&nanos[1]));
        let median = median(nanos_of_one.clone());
        println!("{name:<32} {median:>9.0} {functions:>10.3} {texts:>10.3}");
    }
}

type Contender<'c> = (&'static str, Box<dyn FnMut(&mut PgConnection) + 'c>);

/// Nanoseconds a cycle, by contender and round.
fn take_turns(conn: &mut PgConnection, contenders: &mut [Contender<'_>]) -> Vec<Vec<f64>> {
    let mut nanos = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let began = Instant::now();
            for _ in 0..CYCLES {
                contenders[at].1(conn);
            }
            // The first round warms up.
            if round > 0 {
                nanos[at].push(began.elapsed().as_secs_f64() * 1e9 / f64::from(CYCLES));
            }
        }
    }
    nanos
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ours(conn: &mut PgConnection, key: &LockKey) {
    let guard = conn.acquire_advisory_lock(key, LockOptions::no_wait());
    guard.unwrap().release().unwrap();
}

fn by_hand(conn: &mut PgConnection, key: i64) {
    let granted: bool = diesel::select(pg_try_advisory_lock(key))
        .get_result(conn)
        .unwrap();
    let released: bool = diesel::select(pg_advisory_unlock(key))
        .get_result(conn)
        .unwrap();
    assert!(granted && released);
}

fn our_texts_by_hand(conn: &mut PgConnection, key: i64, try_text: &str, release_text: &str) {
    let binds = [Bind::Int8(key)];
    let (granted, pid): (Option<bool>, i32) = ByHand::<Try>(try_text, &binds, PhantomData)
        .get_result(conn)
        .unwrap();
    let binds = [Bind::Int4(pid), Bind::Int8(key)];
    let (released, _): (Option<bool>, i32) = ByHand::<Release>(release_text, &binds, PhantomData)
        .get_result(conn)
        .unwrap();
    assert_eq!((granted, released), (Some(true), Some(true)));
}

/// The quickest form Diesel has: cached under its type, so that no text is built to look it up.
struct ByHand<'q, Id>(&'q str, &'q [Bind], PhantomData<Id>);
struct Try;
struct Release;

impl<Id> QueryFragment<Pg> for ByHand<'_, Id> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut pieces = self.0.split('$');
        pass.push_sql(pieces.next().unwrap());
        for (piece, bind) in pieces.zip(self.1) {
            match bind {
                Bind::Int4(number) => pass.push_bind_param::<Integer, _>(number)?,
                Bind::Int8(number) => pass.push_bind_param::<BigInt, _>(number)?,
            }
            pass.push_sql(&piece[1..]);
        }
        Ok(())
    }
}

impl<Id: 'static> QueryId for ByHand<'_, Id> {
    type QueryId = ByHand<'static, Id>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<Id> Query for ByHand<'_, Id> {
    type SqlType = (Nullable<Bool>, Integer);
}

impl<Id> RunQueryDsl<PgConnection> for ByHand<'_, Id> {}

/// The texts as the protocol sends them, so that they are compared as they are.
fn statements_of_a_cycle(key: &LockKey) -> [&'static str; 2] {
    let mut recorder = Recorder(Vec::new());
    let guard = recorder.acquire_advisory_lock(key, LockOptions::no_wait());
    guard.unwrap().release().unwrap();
    recorder.0.try_into().expect("two statements")
}

struct Recorder(Vec<&'static str>);

impl LockSession for Recorder {
    fn backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
    }

    fn begin(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.0.push(statement.sql());
        Ok(Row {
            answer: Some(true),
            pid: 1,
        })
    }
}
