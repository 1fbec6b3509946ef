//! Number of replies to each call of an async client, and the messages that it sends together.

use std::time::Duration;

use ::sqlx::PgPool;
use advisory_locking::session::AsyncLockSession;
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockKey, LockOptions, WaitStrategy,
};
use diesel_async::AsyncPgConnection;
use testkit::gate::Gate;
use testkit::observer::Observe;
use testkit::proxy::{Direction, Policy, Proxy};
use testkit::server::{connect, eventually, fresh_key};
use tokio::runtime::Runtime;

use crate::adapters::connect_async;
use crate::{sea_orm, sqlx};

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// Counts an acquire, its release, a scope, a contended try, and a wait that times out.
async fn taken<C: AsyncLockSession>(conn: &mut C, proxy: &Proxy, contended: &LockKey) -> [u32; 5] {
    let (key, mut before, mut taken) = (fresh_key(), proxy.round_trips(), [0; 5]);
    let mut count = |at: usize| {
        let now = proxy.round_trips();
        taken[at] = now - before;
        before = now;
        taken[at]
    };
    let guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    count(0);
    guard.release().await.unwrap();
    count(1);
    conn.with_advisory_xact_lock(&key, NO_WAIT, async |_| Ok::<_, LockError>(()))
        .await
        .unwrap();
    count(2);
    let refused = conn.try_acquire_advisory_lock(contended, NO_WAIT).await;
    assert!(refused.unwrap().is_none());
    count(3);
    // On a stalled machine, the limit may pass before the reply to the try, so no wait follows.
    for seconds in [1, 8, 64] {
        let limit = LockOptions::wait_up_to(Duration::from_secs(seconds));
        let limited = limit.strategy(WaitStrategy::Block);
        let timed_out = conn.try_acquire_advisory_lock(contended, limited).await;
        assert!(timed_out.unwrap().is_none());
        if count(4) > 1 {
            break;
        }
    }
    taken
}

#[test]
fn no_call_takes_more_than_promised() {
    let proxy = Proxy::start();
    let gate = Gate::closed();
    let runtime = Runtime::new().unwrap();
    let warm = runtime.block_on(async {
        let mut conn = connect_async(&proxy.url()).await;
        taken(&mut conn, &proxy, &gate.key).await;
        taken(&mut conn, &proxy, &gate.key).await
    });
    // Acquire; release; begin, lock and end of the snapshot, commit; contended try; try, wait,
    // clean-up. The proxy counts replies. The first three of a transaction are to messages that the
    // client sends together.
    assert_eq!(warm, [1, 1, 4, 1, 3]);
}

/// The begin and the attempt are one message.
#[test]
fn client_takes_no_more_than_promised() {
    let proxy = Proxy::start();
    let gate = Gate::closed();
    let runtime = Runtime::new().unwrap();
    let counts = runtime.block_on(async {
        let mut client = crate::tokio_postgres::connect(&proxy.url()).await;
        let first = taken(&mut client, &proxy, &gate.key).await;
        [first, taken(&mut client, &proxy, &gate.key).await]
    });
    assert_eq!(counts, [[1, 1, 2, 1, 3]; 2]);
}

#[test]
fn attempt_is_sent_before_the_reply_to_begin() {
    let proxy = Proxy::start();
    let runtime = Runtime::new().unwrap();
    let key = fresh_key();
    let mut conn = runtime.block_on(connect_async(&proxy.url()));
    let warm = conn.with_advisory_xact_lock(&key, NO_WAIT, async |_| Ok::<_, LockError>(()));
    runtime.block_on(warm).unwrap();
    proxy.set(Direction::ToClient, Policy::Hold);
    let held = key.clone();
    let call = runtime.spawn(async move {
        let body = async |_: &mut AsyncPgConnection| Ok::<_, LockError>(());
        conn.with_advisory_xact_lock(&held, NO_WAIT, body).await
    });
    let mut observer = connect();
    // The client has received no reply to its `BEGIN` yet.
    eventually("the server grants the lock", || {
        !observer.lock_entries(&key).is_empty()
    });
    proxy.set(Direction::ToClient, Policy::Forward);
    runtime.block_on(call).unwrap().unwrap();
}

/// Returns the number of round trips once the connection is in its pool again. A task of sqlx
/// returns it, after the call.
fn round_trips_after_the_return(pool: &PgPool, proxy: &Proxy) -> u32 {
    let is_idle = || pool.num_idle() == pool.size() as usize;
    eventually("the connection returns to its pool", is_idle);
    proxy.round_trips()
}

/// Counts a lock with its release, and a scope, on a warm connection of a pool.
async fn taken_through<P: AsyncPooledAdvisoryLocking>(
    pool: &P,
    connections: &PgPool,
    proxy: &Proxy,
) -> [u32; 2] {
    let (key, mut taken) = (fresh_key(), [0; 2]);
    let round_trips = || round_trips_after_the_return(connections, proxy);
    for _ in 0..2 {
        let before = round_trips();
        let body = async |_: &mut P::Session| Ok::<_, LockError>(());
        pool.with_advisory_lock(&key, NO_WAIT, body).await.unwrap();
        let between = round_trips();
        let body = async |_: &mut P::Session| Ok::<_, LockError>(());
        pool.with_advisory_xact_lock(&key, NO_WAIT, body)
            .await
            .unwrap();
        taken = [between - before, round_trips() - between];
    }
    taken
}

/// sqlx adds one round trip at the checkout and one at the return.
#[test]
fn sea_orm_takes_no_more_than_promised() {
    let proxy = Proxy::start();
    let warm = Runtime::new().unwrap().block_on(async {
        let pool = sea_orm::open(&proxy.url()).await;
        taken_through(&pool, pool.get_postgres_connection_pool(), &proxy).await
    });
    // Acquire, release; begin and lock, commit.
    assert_eq!(warm, [4, 4]);
}

/// The pool adds one round trip at the checkout and one at the return.
#[test]
fn sqlx_takes_no_more_than_promised() {
    let proxy = Proxy::start();
    let warm = Runtime::new().unwrap().block_on(async {
        let pool = sqlx::open(&proxy.url()).await;
        taken_through(&pool, &pool, &proxy).await
    });
    // Acquire, release; begin, lock, check, commit.
    assert_eq!(warm, [4, 6]);
}
