//! A wait that reaches the server after the first request to end it.

use advisory_locking::{AdvisoryLocking, LockKey, LockMode, LockOptions, RawLockKey, WaitStrategy};
use testkit::observer::{LockEntry, Observe, lock_call};
use testkit::proxy::{Direction, Proxy};
use testkit::server::{connect, eventually_async, fresh_key, fresh_name, with_parameters};
use testkit::timeouts::notices_disconnects;

use crate::adapters::{Adapter, Borrowed, Call};

/// Drops a wait that the proxy holds. Its session, which has this name, must not end because the
/// client has closed the connection. Returns the number of connections before.
async fn drop_held_wait<A: Adapter>(proxy: &Proxy, key: &LockKey, name: &str) -> u32 {
    let mut options = format!("options=-c%20application_name%3D{name}");
    if notices_disconnects(&mut connect()) {
        options.push_str("%20-c%20client_connection_check_interval%3D1h");
    }
    let mut adapter = A::open(&with_parameters(&proxy.url(), &options)).await;
    let before = proxy.connections();
    proxy.hold_from("pg_catalog.pg_advisory_lock(");
    let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    tokio::select! {
        ended = adapter.call(Call::Acquire, key, options) => panic!("{}: {ended:?}", A::NAME),
        () = eventually_async("a held wait", || proxy.holds(Direction::ToServer)) => {}
    }
    before
}

/// A cancel request, or a termination from another connection, is repeated until it ends the wait.
async fn late_wait_leaves_the_queue<A: Adapter>() {
    let proxy = Proxy::start();
    let (mut observer, mut holder, key) = (connect(), connect(), fresh_key());
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let guard = guard.unwrap();
    let name = fresh_name();
    let before = drop_held_wait::<A>(&proxy, &key, &name).await;
    // The first request has come when the second does.
    eventually_async("a second request", || proxy.connections() >= before + 2).await;
    assert_eq!(observer.lock_entries(&key).len(), 1, "{}", A::NAME);
    proxy.forward();
    // The session lives until the wait has arrived and was ended.
    let sessions =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    let ended = format!("{}: the end of the wait", A::NAME);
    eventually_async(&ended, || observer.number(&sessions) == 0).await;
    guard.release().unwrap();
    observer.assert_free(&key, A::NAME).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_are_repeated() {
    late_wait_leaves_the_queue::<Borrowed>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_of_a_client_are_repeated() {
    late_wait_leaves_the_queue::<crate::tokio_postgres::Borrowed>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminations_are_repeated() {
    late_wait_leaves_the_queue::<crate::sea_orm::SeaOrm>().await;
    late_wait_leaves_the_queue::<crate::sqlx::Pooled>().await;
}

fn call(function: &str, key: &LockKey) -> String {
    lock_call(function, key.raw(), LockMode::Exclusive)
}

/// A pooler in session mode may give the session of a dropped wait to another client. That client
/// holds the dropped key here, and waits for another one.
async fn session_of_another_client_is_not_terminated<A: Adapter>(
    dropped: LockKey,
    awaited: LockKey,
) {
    let proxy = Proxy::start();
    let (mut observer, mut holder) = (connect(), connect());
    for key in [&dropped, &awaited] {
        holder.run(&format!("SELECT {}", call("pg_advisory_lock", key)));
    }
    let before = drop_held_wait::<A>(&proxy, &dropped, &fresh_name()).await;
    eventually_async("a termination", || proxy.connections() > before).await;
    holder.run(&format!("SELECT {}", call("pg_advisory_unlock", &dropped)));
    proxy.replace_held(&format!(
        "SELECT {}; SELECT {}",
        call("pg_advisory_lock", &dropped),
        call("pg_advisory_lock", &awaited)
    ));
    let waits = |entries: &[LockEntry]| entries.len() == 2;
    observer.wait_for(&awaited, waits, "no wait").await;
    // The last of five. The wait arrived before one of the others, unless the machine is very slow.
    eventually_async("the fifth termination", || {
        proxy.connections() >= before + 5
    })
    .await;
    assert_eq!(observer.lock_entries(&awaited).len(), 2, "{}", A::NAME);
    assert_eq!(observer.holders(&dropped).len(), 1, "{}", A::NAME);
    drop((holder, proxy));
    observer.assert_free(&awaited, A::NAME).await;
}

/// Returns the key of the other key space that has the same bits.
fn in_the_other_space(key: &LockKey) -> LockKey {
    match key.raw() {
        RawLockKey::Single(number) => {
            let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
            LockKey::from((
                i32::from_be_bytes([a, b, c, d]),
                i32::from_be_bytes([e, f, g, h]),
            ))
        }
        RawLockKey::Pair(..) => panic!("{key} has two numbers"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminations_spare_a_wait_for_another_key() {
    use crate::sea_orm::SeaOrm;
    use crate::sqlx::Pooled;

    session_of_another_client_is_not_terminated::<SeaOrm>(fresh_key(), fresh_key()).await;
    session_of_another_client_is_not_terminated::<Pooled>(fresh_key(), fresh_key()).await;
    let dropped = fresh_key();
    let awaited = in_the_other_space(&dropped);
    session_of_another_client_is_not_terminated::<Pooled>(dropped, awaited).await;
}
