//! Pools whose connections are in a transaction, and clients that panic.

use std::future::pending;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use advisory_locking::LockErrorKind::Pool as PoolError;
use advisory_locking::lock_manager::LockManager;
use advisory_locking::session::SessionError;
use advisory_locking::session::{AsyncLockPool, AsyncLockSession, LockPool, LockSession};
use diesel::connection::InstrumentationEvent;
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::{Connection as _, r2d2};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use testkit::server::{eventually, url};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::cases::{block, fresh_key, kind_of, no_wait};
use crate::competing_session::CompetingSession;
use crate::instantiate::in_runtime;

/// A pool without a check, whose first connection is in a transaction.
struct FirstInTransaction<P> {
    pool: P,
    checkouts: AtomicUsize,
}

impl<P> FirstInTransaction<P> {
    const fn new(pool: P) -> Self {
        Self {
            pool,
            checkouts: AtomicUsize::new(0),
        }
    }

    fn is_first(&self) -> bool {
        self.checkouts.fetch_add(1, Ordering::SeqCst) == 0
    }
}

impl<P: LockPool> LockPool for FirstInTransaction<P> {
    type Session = P::Session;
    type Connection = P::Connection;

    fn checkout(&self) -> Result<P::Connection, SessionError> {
        let mut conn = self.pool.checkout()?;
        if self.is_first() {
            conn.session_begin()?;
        }
        Ok(conn)
    }
}

impl<P: AsyncLockPool> AsyncLockPool for FirstInTransaction<P> {
    type Session = P::Session;
    type Connection = P::Connection;

    async fn checkout(&self) -> Result<P::Connection, SessionError> {
        let mut conn = self.pool.checkout().await?;
        if self.is_first() {
            conn.session_begin().await?;
        }
        Ok(conn)
    }
}

fn blocking_pool() -> Pool<ConnectionManager<PgConnection>> {
    let pool = Pool::builder().max_size(2).min_idle(Some(0));
    pool.build_unchecked(ConnectionManager::new(url()))
}

async fn connection_in_a_transaction_is_rejected(manager: LockManager) {
    let key = fresh_key();
    let rejected = manager.acquire_fenced(key.clone(), no_wait()).await;
    assert_eq!(kind_of(rejected), Some(PoolError));
    // On another connection each token has a transaction of its own.
    let first = manager
        .acquire_fenced(key.clone(), no_wait())
        .await
        .unwrap();
    let token = first.fencing_token();
    first.release().await.unwrap();
    let second = manager.acquire_fenced(key, no_wait()).await.unwrap();
    assert!(second.fencing_token() > token);
    second.release().await.unwrap();
}

#[test]
fn blocking_connection_in_a_transaction_is_rejected() {
    let pool = FirstInTransaction::new(blocking_pool());
    let manager = LockManager::over_blocking_pool(pool).unwrap();
    in_runtime(connection_in_a_transaction_is_rejected(manager));
}

#[test]
fn async_connection_in_a_transaction_is_rejected() {
    in_runtime(async {
        let connections = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
        let pool = bb8::Pool::builder().max_size(2).build(connections).await;
        let pool = FirstInTransaction::new(pool.unwrap());
        let manager = LockManager::over_async_pool(pool).unwrap();
        connection_in_a_transaction_is_rejected(manager).await;
    });
}

/// A pool whose first checkout panics, as a hook of the application may.
struct FirstPanics<P>(FirstInTransaction<P>);

impl<P: LockPool> LockPool for FirstPanics<P> {
    type Session = P::Session;
    type Connection = P::Connection;

    fn checkout(&self) -> Result<P::Connection, SessionError> {
        assert!(!self.0.is_first(), "the hook panics");
        self.0.pool.checkout()
    }
}

impl<P: AsyncLockPool> AsyncLockPool for FirstPanics<P> {
    type Session = P::Session;
    type Connection = P::Connection;

    async fn checkout(&self) -> Result<P::Connection, SessionError> {
        assert!(!self.0.is_first(), "the hook panics");
        self.0.pool.checkout().await
    }
}

async fn panic_in_a_checkout_is_an_error(manager: LockManager) {
    let key = fresh_key();
    let error = manager.acquire(key.clone(), no_wait()).await.unwrap_err();
    assert_eq!(error.kind(), PoolError);
    assert!(error.to_string().contains("panicked"), "{error}");
    manager
        .acquire(key, block())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

#[test]
fn panic_in_a_blocking_checkout_is_an_error() {
    let pool = FirstPanics(FirstInTransaction::new(blocking_pool()));
    let manager = LockManager::over_blocking_pool(pool).unwrap();
    in_runtime(panic_in_a_checkout_is_an_error(manager));
}

#[test]
fn panic_in_an_async_checkout_is_an_error() {
    in_runtime(async {
        let connections = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
        let pool = bb8::Pool::builder().max_size(2).build(connections).await;
        let pool = FirstPanics(FirstInTransaction::new(pool.unwrap()));
        let manager = LockManager::over_async_pool(pool).unwrap();
        panic_in_a_checkout_is_an_error(manager).await;
    });
}

/// A pool that never returns a connection.
struct NoConnection<P>(PhantomData<P>);

impl<P: AsyncLockPool> AsyncLockPool for NoConnection<P> {
    type Session = P::Session;
    type Connection = P::Connection;

    async fn checkout(&self) -> Result<P::Connection, SessionError> {
        pending().await
    }
}

#[test]
fn close_completes_after_the_runtime_of_an_opening_session() {
    let home = Builder::new_current_thread().enable_all().build().unwrap();
    let manager = home.block_on(async {
        let pool = NoConnection::<bb8::Pool<AsyncPgConnection>>(PhantomData);
        let manager = LockManager::over_async_pool(pool).unwrap();
        // Long enough for the session to begin.
        let call = timeout(
            Duration::from_millis(20),
            manager.acquire(fresh_key(), block()),
        );
        call.await.unwrap_err();
        manager
    });
    let closing = thread::spawn({
        let manager = manager.clone();
        move || manager.close_blocking()
    });
    eventually("the call of close", || manager.snapshot().is_closed);
    // The session has not learned of it: no thread drives its runtime.
    drop(home);
    eventually("the end of close", || closing.is_finished());
}

/// Panics in the first wait on the server.
#[derive(Clone, Debug, Default)]
struct PanicInWait(Arc<AtomicBool>);

impl CustomizeConnection<PgConnection, r2d2::Error> for PanicInWait {
    fn on_acquire(&self, conn: &mut PgConnection) -> Result<(), r2d2::Error> {
        let panicked = Arc::clone(&self.0);
        conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { query, .. } = event {
                let waits = query.to_string().contains("DO $advisory_locking$");
                assert!(
                    !waits || panicked.swap(true, Ordering::SeqCst),
                    "the client panics in a wait"
                );
            }
        });
        Ok(())
    }
}

/// The waiter goes on without the session that ended.
#[test]
fn waiter_outlives_a_client_that_panics_in_the_wait() {
    let panics = PanicInWait::default();
    let pool = Pool::builder()
        .max_size(3)
        .min_idle(Some(0))
        .connection_customizer(Box::new(panics.clone()))
        .build_unchecked(ConnectionManager::<PgConnection>::new(url()));
    let manager = LockManager::over_blocking_pool(pool).unwrap();
    let key = fresh_key();
    let mut competitor = CompetingSession::holding(&key);
    let waiting = thread::spawn({
        let (manager, key) = (manager.clone(), key.clone());
        move || manager.acquire_blocking(key, block())?.release_blocking()
    });
    eventually("a panic", || panics.0.load(Ordering::SeqCst));
    competitor.unlock(&key);
    waiting.join().unwrap().unwrap();
    manager.close_blocking();
}
