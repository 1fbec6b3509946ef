//! How many round trips a call takes on a warm `AsyncPgConnection`: as many as on a blocking one.

use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, LockError, LockKey, LockOptions, WaitStrategy};
use diesel_async::AsyncPgConnection;
use tokio::runtime::Runtime;

use crate::adapters::connect;
use crate::observer::{Gate, database_url, fresh_key};
use crate::proxy::Proxy;
use crate::silence::by_port;

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// The round trips of an acquire, its release, a scope, a refusal, and a wait on the server that times out.
async fn taken(conn: &mut AsyncPgConnection, proxy: &Proxy, busy: &LockKey) -> [u32; 5] {
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
    let refused = conn.try_acquire_advisory_lock(busy, NO_WAIT).await;
    assert!(refused.unwrap().is_none());
    count(3);
    // Long enough that a slow machine has been refused before it is over, and waits.
    let limited = LockOptions::wait_up_to(Duration::from_secs(1)).strategy(WaitStrategy::Block);
    let timed_out = conn.try_acquire_advisory_lock(busy, limited).await;
    assert!(timed_out.unwrap().is_none());
    count(4);
    taken
}

#[test]
fn no_call_takes_more_than_promised() {
    let (proxy, port) = Proxy::to(&database_url());
    let gate = Gate::closed();
    let runtime = Runtime::new().unwrap();
    let warm = runtime.block_on(async {
        let mut conn = connect(&by_port(port)).await;
        taken(&mut conn, &proxy, &gate.key).await;
        taken(&mut conn, &proxy, &gate.key).await
    });
    // Acquire; release; begin, lock, commit; a refusal; try, wait, clean-up.
    assert_eq!(warm, [1, 1, 3, 1, 3]);
}
