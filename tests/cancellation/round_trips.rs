//! Number of round trips of each call of an async client: that of the blocking one, and one less
//! for a transaction with its lock.

use std::time::Duration;

use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockKey, LockOptions, WaitStrategy,
};
use diesel_async::AsyncPgConnection;
use testkit::gate::Gate;
use testkit::proxy::Proxy;
use testkit::server::fresh_key;
use tokio::runtime::Runtime;

use crate::adapters::connect_async;
use crate::sea_orm;

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// Counts an acquire, its release, a scope, a contended try, and a wait that times out.
async fn taken(conn: &mut AsyncPgConnection, proxy: &Proxy, contended: &LockKey) -> [u32; 5] {
    let (key, mut before, mut taken) = (fresh_key(), proxy.round_trips(), [0; 5]);
    let mut count = |at: usize| {
        let now = proxy.round_trips();
        taken[at] = now - before;
        before = now;
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
    // Long enough for the try and the start of the wait on a slow machine.
    let limited = LockOptions::wait_up_to(Duration::from_secs(1)).strategy(WaitStrategy::Block);
    let timed_out = conn.try_acquire_advisory_lock(contended, limited).await;
    assert!(timed_out.unwrap().is_none());
    count(4);
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
    // Acquire; release; begin and lock, commit; contended try; try, wait, clean-up.
    assert_eq!(warm, [1, 1, 2, 1, 3]);
}

/// sqlx adds one round trip at the check-out and one at the return.
#[test]
fn sea_orm_takes_no_more_than_promised() {
    let proxy = Proxy::start();
    let runtime = Runtime::new().unwrap();
    let warm = runtime.block_on(async {
        let pool = sea_orm::open(&proxy.url()).await;
        let (key, mut taken) = (fresh_key(), [0; 2]);
        for _ in 0..2 {
            let before = proxy.round_trips();
            pool.with_advisory_lock(&key, NO_WAIT, async |_| Ok::<_, LockError>(()))
                .await
                .unwrap();
            let between = proxy.round_trips();
            pool.with_advisory_xact_lock(&key, NO_WAIT, async |_| Ok::<_, LockError>(()))
                .await
                .unwrap();
            taken = [between - before, proxy.round_trips() - between];
        }
        taken
    });
    // Acquire, release; begin and lock, commit.
    assert_eq!(warm, [4, 4]);
}
