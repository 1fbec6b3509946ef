//! A wait that reaches the server after the first request to end it.

use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockOptions, WaitStrategy};
use testkit::observer::Observe;
use testkit::proxy::{Direction, Proxy};
use testkit::server::{TIMEOUT, connect, fresh_key, fresh_name, with_parameters};
use testkit::timeouts::notices_disconnects;

use crate::adapters::{Adapter, Borrowed, Call};

async fn until(event: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < TIMEOUT, "never occurred: {event}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A cancel request, or a termination from another connection, is repeated until it ends the wait.
async fn late_wait_leaves_the_queue<A: Adapter>() {
    let proxy = Proxy::start();
    let (mut observer, mut holder, key) = (connect(), connect(), fresh_key());
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let guard = guard.unwrap();
    // The server must not end the wait because the client has closed the connection.
    let name = fresh_name();
    let mut options = format!("options=-c%20application_name%3D{name}");
    if notices_disconnects(&mut observer) {
        options.push_str("%20-c%20client_connection_check_interval%3D1h");
    }
    let mut adapter = A::open(&with_parameters(&proxy.url(), &options)).await;
    proxy.hold_from("pg_catalog.pg_advisory_lock(");
    let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    tokio::select! {
        ended = adapter.call(Call::Acquire, &key, options) => panic!("{}: {ended:?}", A::NAME),
        () = until("a held wait", || proxy.holds(Direction::ToServer)) => {}
    }
    let before = proxy.connections();
    // The first request has come when the second does.
    until("a second request", || proxy.connections() >= before + 2).await;
    assert_eq!(observer.lock_entries(&key).len(), 1, "{}", A::NAME);
    proxy.forward();
    // The session lives until the wait has arrived and was ended.
    let sessions =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    let began = Instant::now();
    while observer.number(&sessions) > 0 {
        assert!(began.elapsed() < TIMEOUT, "{}: the wait goes on", A::NAME);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
