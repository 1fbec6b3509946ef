//! Guards and bodies that are dropped, aborted or unwound, on every pool.

use advisory_locking::session::{AsyncLockSession, TransactionState};
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockOptions,
    WaitStrategy,
};
use diesel::sql_types::Integer;
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    TransactionManager,
};
use futures_util::FutureExt;
use testkit::gate::Gate;
use testkit::observer::{LockEntry, Observe};
use testkit::proxy::Proxy;
use testkit::server::{connect, eventually_async, fresh_key, url};
use testkit::temp::TempObject;

use crate::adapters::connect_async;
use crate::pools::{Pool, assert_works, begin, on_every_pool, open, pid, pid_of_next};

const NO_WAIT: LockOptions = LockOptions::no_wait();

async fn a_dropped_guard_releases_and_keeps_the_connection<P: Pool>() {
    let (pool, mut observer) = (open::<P>().await, connect());
    for options in [NO_WAIT, NO_WAIT.shared()] {
        let key = fresh_key();
        let mut guard = pool.acquire_advisory_lock(&key, options).await.unwrap();
        let before = pid(&mut guard).await;
        drop(guard);
        observer.assert_free(&key, "dropping the guard").await;
        assert_eq!(pid_of_next(&pool).await == before, P::REUSES_CONNECTIONS);
    }
}

async fn a_guard_learns_of_a_closed_connection<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    assert!(!guard.is_lost());
    observer.terminate_holder(&key);
    eventually_async("news of the loss", || guard.is_lost()).await;
    assert!(guard.release().await.unwrap_err().is_lost());
    assert_works(&pool).await;
}

/// An open transaction says nothing about the session.
async fn a_guard_in_a_transaction_learns_of_a_closed_connection<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    begin(&mut guard).await;
    assert!(!guard.is_lost());
    let mut transaction = guard.session_transaction_state();
    assert_eq!(transaction, TransactionState::open(1));
    observer.terminate_holder(&key);
    eventually_async("news of the loss", || guard.is_lost()).await;
    transaction = guard.session_transaction_state();
    assert_eq!(transaction, TransactionState::open(1));
    drop(guard);
    assert_works(&pool).await;
}

/// The lock was held until the end of the body, so it was not lost.
async fn a_begin_dropped_in_a_body_is_a_transaction_left_open<P: Pool>() {
    for drops_guard in [false, true] {
        let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
        let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        let before = pid(&mut guard).await;
        // The first poll sends the statement.
        let begun = AnsiTransactionManager::begin_transaction(&mut *guard).now_or_never();
        assert!(begun.is_none(), "the begin has ended");
        assert!(!guard.is_lost());
        if drops_guard {
            drop(guard);
        } else {
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::TransactionLeftOpen);
        }
        observer.assert_free(&key, "a dropped begin").await;
        assert_ne!(pid_of_next(&pool).await, before);
    }
}

/// The body's statement continues, and the release is queued behind it.
async fn a_body_dropped_in_a_statement_releases_after_it<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut gate = Gate::closed();
    let at_the_gate = gate.statement();
    let call = pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
        conn.batch_execute(&at_the_gate).await
    });
    gate.drop_there(&mut observer, call).await;
    assert_eq!(
        observer.lock_entries(&key).len(),
        1,
        "the statement still runs"
    );
    gate.open();
    observer.assert_free(&key, "the statement in flight").await;
    assert_works(&pool).await;
}

async fn a_body_dropped_in_a_transaction_discards_the_connection<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let (mut gate, mut before) = (Gate::closed(), 0);
    let at_the_gate = gate.statement();
    let call = pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
        before = pid(conn).await;
        conn.transaction(async |conn| conn.batch_execute(&at_the_gate).await)
            .await
    });
    gate.drop_there(&mut observer, call).await;
    gate.open();
    observer
        .assert_free(&key, "the transaction in flight")
        .await;
    assert_ne!(pid_of_next(&pool).await, before);
}

async fn a_body_dropped_under_an_xact_lock_is_rolled_back<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let (mut gate, mut before) = (Gate::closed(), 0);
    let at_the_gate = gate.statement();
    let call = pool.with_advisory_xact_lock(&key, NO_WAIT, async |conn| {
        before = pid(conn).await;
        conn.batch_execute(&at_the_gate).await
    });
    gate.drop_there(&mut observer, call).await;
    gate.open();
    observer
        .assert_free(&key, "the transaction in flight")
        .await;
    assert_ne!(pid_of_next(&pool).await, before);
}

async fn a_guard_dropped_in_a_transaction_frees_the_key<P: Pool>() {
    for fails in [false, true] {
        let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
        let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        let before = pid(&mut guard).await;
        begin(&mut guard).await;
        if fails {
            guard.batch_execute("SELECT 1/0").await.unwrap_err();
        }
        drop(guard);
        observer.assert_free(&key, "a drop in a transaction").await;
        assert_ne!(pid_of_next(&pool).await, before);
    }
}

/// The client does not see the transaction, so the release is sent, and fails.
async fn a_guard_dropped_in_a_raw_aborted_transaction_frees_the_key<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    guard.batch_execute("BEGIN").await.unwrap();
    guard.batch_execute("SELECT 1/0").await.unwrap_err();
    drop(guard);
    observer
        .assert_free(&key, "a drop in an aborted transaction")
        .await;
    assert_works(&pool).await;
}

/// After `SET ROLE`, the session may not terminate itself.
async fn a_guard_dropped_in_another_role_frees_the_key<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let role = TempObject::create("ROLE", "");
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let set_role = format!("SET ROLE {}", role.name);
    guard.batch_execute(&set_role).await.unwrap();
    guard.batch_execute("BEGIN").await.unwrap();
    guard.batch_execute("SELECT 1/0").await.unwrap_err();
    drop(guard);
    observer.assert_free(&key, "a drop in another role").await;
}

/// A terminated connection is not handed out again.
async fn a_transaction_left_open_discards_the_connection<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut before = 0;
    let body = async |conn: &mut AsyncPgConnection| -> Result<(), LockError> {
        before = pid(conn).await;
        begin(conn).await;
        Ok(())
    };
    let error = pool.with_advisory_lock(&key, NO_WAIT, body).await;
    assert_eq!(
        error.unwrap_err().kind(),
        LockErrorKind::TransactionLeftOpen
    );
    observer.assert_free(&key, "a transaction left open").await;
    assert_ne!(pid_of_next(&pool).await, before);
}

async fn a_connection_returned_in_a_transaction_is_discarded<P: Pool>() {
    let pool = open::<P>().await;
    let mut conn = pool.checkout().await.unwrap();
    let before = pid(&mut conn).await;
    begin(&mut conn).await;
    drop(conn);
    assert_ne!(pid_of_next(&pool).await, before);
}

async fn a_panic_in_the_body_frees_the_key_and_goes_on<P: Pool>() {
    for transaction in [false, true] {
        let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
        let (pool_in_task, key_in_task) = (pool.clone(), key.clone());
        let task = tokio::spawn(async move {
            let body = async |_: &mut AsyncPgConnection| -> Result<(), LockError> {
                panic!("the body's panic")
            };
            if transaction {
                pool_in_task
                    .with_advisory_xact_lock(key_in_task, NO_WAIT, body)
                    .await
            } else {
                pool_in_task
                    .with_advisory_lock(key_in_task, NO_WAIT, body)
                    .await
            }
        });
        assert!(task.await.unwrap_err().is_panic());
        observer.assert_free(&key, "a panic").await;
        assert_works(&pool).await;
    }
}

async fn an_aborted_task_frees_the_key<P: Pool>() {
    for transaction in [false, true] {
        let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
        let (pool_in_task, key_in_task) = (pool.clone(), key.clone());
        let task = tokio::spawn(async move {
            let body = async |_: &mut AsyncPgConnection| -> Result<(), LockError> {
                std::future::pending().await
            };
            if transaction {
                pool_in_task
                    .with_advisory_xact_lock(key_in_task, NO_WAIT, body)
                    .await
            } else {
                pool_in_task
                    .with_advisory_lock(key_in_task, NO_WAIT, body)
                    .await
            }
        });
        observer
            .wait_for(
                &key,
                |entries| entries.len() == 1,
                "the task acquires the lock",
            )
            .await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        observer.assert_free(&key, "an abort").await;
        assert_works(&pool).await;
    }
}

/// A `select!` loop that restarts the wait.
async fn restarted_attempts_do_not_pile_up_in_the_queue<P: Pool>() {
    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let mut holder = connect_async(&url()).await;
    let guard = AsyncAdvisoryLocking::acquire_advisory_lock(&mut holder, &key, NO_WAIT)
        .await
        .unwrap();
    let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    for attempt in 0..10 {
        tokio::select! {
            _ = pool.acquire_advisory_lock(&key, options) => panic!("granted though it is held"),
            () = observer.wait_for(&key, |entries| entries.len() == 2, "it queues") => {}
        }
        let what = format!("attempt {attempt} is still queued");
        observer
            .wait_for(&key, |entries| entries.len() == 1, &what)
            .await;
    }
    guard.release().await.unwrap();
    observer.assert_free(&key, "all attempts").await;
    assert_works(&pool).await;
}

/// The session records each release. The record of the first release must not pass for that of the
/// second, which the aborted transaction refuses.
#[tokio::test]
async fn second_dropped_guard_in_an_aborted_transaction_frees_the_key() {
    let (mut conn, mut observer) = (connect_async(&url()).await, connect());
    for aborts in [false, true] {
        let key = fresh_key();
        let guard = AsyncAdvisoryLocking::acquire_advisory_lock(&mut conn, &key, NO_WAIT);
        let mut guard = guard.await.unwrap();
        if aborts {
            guard.batch_execute("BEGIN").await.unwrap();
            guard.batch_execute("SELECT 1/0").await.unwrap_err();
        }
        drop(guard);
        observer.assert_free(&key, "dropping the guard").await;
    }
}

/// The release cannot be sent, so no pool may hand the connection out.
#[tokio::test]
async fn guard_dropped_on_a_closed_connection_marks_it_broken() {
    let mut conn = connect_async(&url()).await;
    let mut guard = AsyncAdvisoryLocking::acquire_advisory_lock(&mut conn, fresh_key(), NO_WAIT)
        .await
        .unwrap();
    guard
        .batch_execute("SELECT pg_terminate_backend(pg_backend_pid())")
        .await
        .unwrap_err();
    // Until the client has read the end of the session.
    while guard.batch_execute("SELECT 1").await.is_ok() {}
    drop(guard);
    assert!(conn.session_transaction_state().is_broken());
}

/// A pooler may end on a cancel request, so the library sends one only during a wait.
#[tokio::test]
async fn only_a_wait_is_cancelled() {
    let (proxy, mut observer) = (Proxy::start(), connect());

    let mut conn = connect_async(&proxy.url()).await;
    let key = fresh_key();
    let call = conn.with_advisory_xact_lock(&key, NO_WAIT, async |_| {
        std::future::pending::<Result<(), LockError>>().await
    });
    tokio::select! {
        _ = call => panic!("the body never ends"),
        () = observer.wait_for(&key, |entries| !entries.is_empty(), "the body begins") => {}
    }
    drop(conn);
    observer.assert_free(&key, "the body").await;
    assert_eq!(proxy.connections(), 1);

    let mut conn = connect_async(&proxy.url()).await;
    let mut gate = Gate::closed();
    let key = gate.key.clone();
    let wait = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    gate.drop_there(&mut observer, conn.acquire_advisory_lock(&key, wait))
        .await;
    let only_the_holder = |entries: &[LockEntry]| entries.len() == 1;
    observer
        .wait_for(&key, only_the_holder, "the wait ends")
        .await;
    assert!(proxy.connections() > 2);
}

/// The body borrows, awaits, opens a transaction and acquires another lock, in a spawned task.
async fn a_body_may_borrow_and_nest_in_a_spawned_task<P: Pool>() {
    use advisory_locking::AsyncAdvisoryLocking;
    use diesel::{IntoSql, select};

    let (pool, mut observer, key) = (open::<P>().await, connect(), fresh_key());
    let (outer, inner) = (key.clone(), fresh_key());
    let task = tokio::spawn(async move {
        let mut steps = vec!["begin"];
        let value = AsyncPooledAdvisoryLocking::with_advisory_lock(
            &pool,
            outer,
            NO_WAIT,
            async |conn: &mut AsyncPgConnection| {
                steps.push("locked");
                conn.with_advisory_lock(&inner, NO_WAIT, async |conn| {
                    conn.transaction(async |conn| {
                        select(7.into_sql::<Integer>())
                            .get_result::<i32>(conn)
                            .await
                    })
                    .await
                })
                .await
            },
        )
        .await;
        (steps, value)
    });
    assert_eq!(task.await.unwrap(), (vec!["begin", "locked"], Ok(7)));
    observer.assert_free(&key, "the task").await;
}

on_every_pool! {
    a_dropped_guard_releases_and_keeps_the_connection
    a_guard_learns_of_a_closed_connection
    a_guard_in_a_transaction_learns_of_a_closed_connection
    a_begin_dropped_in_a_body_is_a_transaction_left_open
    a_body_dropped_in_a_statement_releases_after_it
    a_body_dropped_in_a_transaction_discards_the_connection
    a_body_dropped_under_an_xact_lock_is_rolled_back
    a_guard_dropped_in_a_transaction_frees_the_key
    a_guard_dropped_in_a_raw_aborted_transaction_frees_the_key
    a_guard_dropped_in_another_role_frees_the_key
    a_transaction_left_open_discards_the_connection
    a_connection_returned_in_a_transaction_is_discarded
    a_panic_in_the_body_frees_the_key_and_goes_on
    an_aborted_task_frees_the_key
    restarted_attempts_do_not_pile_up_in_the_queue
    a_body_may_borrow_and_nest_in_a_spawned_task
}
