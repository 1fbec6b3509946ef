//! Drops on a thread without a runtime, and during the shutdown of a runtime.

use advisory_locking::{AdvisoryLocking, AsyncPooledAdvisoryLocking, LockOptions, WaitStrategy};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use testkit::gate::Gate;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key, url};
use tokio::runtime::Runtime;

use crate::adapters::{Adapter, Borrowed, Call, Pooled};
use crate::pools::{
    Bb8, Deadpool, Mobc, MutexPool, Pool, assert_works, begin, on_every_pool, open, pid,
    pid_of_next,
};

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// Drops a value on a thread that has no runtime; a panic there fails the test.
fn drop_without_runtime<T: Send>(value: T) {
    std::thread::scope(|scope| scope.spawn(|| drop(value)).join().unwrap());
}

async fn a_guard_releases<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let before = pid(&mut guard).await;
    drop_without_runtime(guard);
    observer.assert_free(&key, "a drop without a runtime").await;
    assert_eq!(pid_of_next(&pool).await == before, P::REUSES_CONNECTIONS);
}

async fn a_guard_in_a_transaction_discards_the_connection<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let before = pid(&mut guard).await;
    begin(&mut guard).await;
    drop_without_runtime(guard);
    observer.assert_free(&key, "a drop without a runtime").await;
    assert_ne!(pid_of_next(&pool).await, before);
}

async fn a_body_releases_when_its_statement_ends<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut gate = Gate::closed();
    let at_the_gate = gate.statement();
    let mut call = Box::pin(pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
        conn.batch_execute(&at_the_gate).await
    }));
    tokio::select! {
        _ = &mut call => panic!("the body did not wait"),
        () = gate.reached(&mut observer) => {}
    }
    drop_without_runtime(call);
    gate.open();
    observer.assert_free(&key, "a drop without a runtime").await;
    assert_works(&pool).await;
}

async fn a_wait_leaves_the_queue<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let holder = MutexPool::open(&url()).await;
    let guard = holder.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    let mut call = Box::pin(pool.acquire_advisory_lock(&key, options));
    tokio::select! {
        _ = &mut call => panic!("granted though it is held"),
        () = observer.wait_for(&key, |entries| entries.len() == 2, "it queues") => {}
    }
    drop_without_runtime(call);
    observer
        .wait_for(&key, |entries| entries.len() == 1, "still queued")
        .await;
    guard.release().await.unwrap();
    observer.assert_free(&key, "the wait").await;
    assert_works(&pool).await;
}

on_every_pool! {
    a_guard_releases
    a_guard_in_a_transaction_discards_the_connection
    a_body_releases_when_its_statement_ends
    a_wait_leaves_the_queue
}

/// With `min_idle`, bb8 replaces a broken connection at once, in a task.
#[tokio::test]
async fn a_pool_that_replenishes_itself_replaces_the_connection() {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
    let pool = bb8::Pool::builder()
        .max_size(1)
        .min_idle(1)
        .build(manager)
        .await
        .unwrap();
    let (mut observer, key) = (connect(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let before = pid(&mut guard).await;
    begin(&mut guard).await;
    drop_without_runtime(guard);
    observer.assert_free(&key, "a drop without a runtime").await;
    assert_ne!(pid_of_next(&pool).await, before);
}

/// A runtime shuts down while a task runs a body, a task waits on the server, and a guard is held
/// outside of it.
fn a_runtime_ends<P: Pool>() {
    let observing = Runtime::new().unwrap();
    let (mut observer, held, in_body) = (connect(), fresh_key(), fresh_key());
    let mut gate = Gate::closed();
    let wanted = gate.key.clone();
    let runtime = Runtime::new().unwrap();
    let guard = runtime.block_on(async {
        let pool = open::<P>().await;
        pool.acquire_advisory_lock(&held, NO_WAIT).await.unwrap()
    });
    let key = in_body.clone();
    runtime.spawn(async move {
        let body = async |_: &mut AsyncPgConnection| std::future::pending().await;
        let pool = open::<P>().await;
        let result: Result<(), diesel::result::Error> =
            pool.with_advisory_lock(key, NO_WAIT, body).await;
        result
    });
    runtime.spawn(async move {
        let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
        open::<P>()
            .await
            .acquire_advisory_lock(wanted, options)
            .await
            .map(drop)
    });
    observing.block_on(async {
        gate.reached(&mut observer).await;
        let holds = |entries: &[_]| entries.len() == 1;
        observer.wait_for(&in_body, holds, "a body runs").await;
    });
    drop(runtime);
    observing.block_on(async {
        observer.assert_free(&in_body, "the runtime's end").await;
        observer.assert_free(&held, "the runtime's end").await;
        let alone = |entries: &[_]| entries.len() == 1;
        observer
            .wait_for(&gate.key, alone, "the runtime's end left a waiter")
            .await;
    });
    drop(guard);
}

macro_rules! on_every_pool_without_a_runtime {
    ($($name:ident => $pool:ty;)*) => {$(
        #[test]
        fn $name() {
            a_runtime_ends::<$pool>();
        }
    )*};
}
on_every_pool_without_a_runtime! {
    a_runtime_ends_without_a_pool => MutexPool;
    a_runtime_ends_with_bb8 => Bb8;
    a_runtime_ends_with_deadpool => Deadpool;
    a_runtime_ends_with_mobc => Mobc;
}

/// A runtime makes progress only inside `block_on`, and no thread is inside it.
fn wait_ends_while_its_runtime_stands_still<A: Adapter>() {
    let observing = Runtime::new().unwrap();
    let (mut observer, mut holder, key) = (connect(), connect(), fresh_key());
    let guard = holder.acquire_advisory_lock(&key, NO_WAIT).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut adapter = runtime.block_on(async {
        let mut adapter = A::open(&url()).await;
        let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
        tokio::select! {
            ended = adapter.call(Call::Acquire, &key, options) => panic!("{}: {ended:?}", A::NAME),
            () = observer.wait_for(&key, |entries| entries.len() == 2, "it queues") => {}
        }
        adapter
    });
    let alone = |entries: &[_]| entries.len() == 1;
    observing.block_on(observer.wait_for(&key, alone, "still queued"));
    guard.release().unwrap();
    runtime.block_on(adapter.check());
}

macro_rules! on_adapters {
    ($($name:ident => $adapter:ty;)*) => {$(
        #[test]
        fn $name() {
            wait_ends_while_its_runtime_stands_still::<$adapter>();
        }
    )*};
}
on_adapters! {
    runtime_stands_still_without_a_pool => Borrowed;
    runtime_stands_still_with_bb8 => Pooled<Bb8>;
    runtime_stands_still_with_sea_orm => crate::sea_orm::SeaOrm;
    runtime_stands_still_with_sqlx => crate::sqlx::Pooled;
    runtime_stands_still_with_a_client => crate::tokio_postgres::Borrowed;
    runtime_stands_still_with_a_pool_of_clients => crate::tokio_postgres::Bb8;
}
