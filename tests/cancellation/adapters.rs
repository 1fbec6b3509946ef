//! What is tested: each way to a connection, behind one face.

use std::future::Future;

use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockKey, LockOptions,
};
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::{bb8, deadpool};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use crate::observer::database_url;

/// The calls that take a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Acquire,
    TryAcquire,
    With,
    TryWith,
    WithTransaction,
    TryWithTransaction,
}

pub(crate) const CALLS: [Call; 6] = [
    Call::Acquire,
    Call::TryAcquire,
    Call::With,
    Call::TryWith,
    Call::WithTransaction,
    Call::TryWithTransaction,
];

/// A way to a connection, with one connection in all.
pub(crate) trait Adapter: Sized + Send {
    const NAME: &str;

    fn open() -> impl Future<Output = Self> + Send;

    /// Makes a call; its body runs a statement that takes a few milliseconds.
    fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> impl Future<Output = Result<(), LockError>> + Send;

    /// A connection can be had and works; with a borrowed connection, it works or says that it is closed.
    fn check(&mut self) -> impl Future<Output = ()> + Send;
}

async fn body(conn: &mut AsyncPgConnection) -> Result<(), LockError> {
    diesel::sql_query("SELECT pg_sleep(0.005)")
        .execute(conn)
        .await
        .map(drop)
        .map_err(|error| {
            LockError::new(advisory_locking::LockErrorKind::Database).with_source(error)
        })
}

macro_rules! calls {
    ($conn:expr, $call:expr, $key:expr, $options:expr, $body:expr) => {
        match $call {
            Call::Acquire => {
                $conn
                    .acquire_advisory_lock($key, $options)
                    .await?
                    .release()
                    .await
            }
            Call::TryAcquire => match $conn.try_acquire_advisory_lock($key, $options).await? {
                Some(guard) => guard.release().await,
                None => Ok(()),
            },
            Call::With => $conn.with_advisory_lock($key, $options, $body).await,
            Call::TryWith => $conn
                .try_with_advisory_lock($key, $options, $body)
                .await
                .map(drop),
            Call::WithTransaction => $conn.with_advisory_xact_lock($key, $options, $body).await,
            Call::TryWithTransaction => $conn
                .try_with_advisory_xact_lock($key, $options, $body)
                .await
                .map(drop),
        }
    };
}

pub(crate) use calls;

pub(crate) struct Borrowed(AsyncPgConnection);

impl Adapter for Borrowed {
    const NAME: &str = "&mut AsyncPgConnection";

    async fn open() -> Self {
        Self(AsyncPgConnection::establish(&database_url()).await.unwrap())
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        calls!(self.0, call, key, options, body)
    }

    async fn check(&mut self) {
        // A connection nobody can replace is closed for good if a statement of ours was dropped on it.
        if diesel::sql_query("SELECT 1")
            .execute(&mut self.0)
            .await
            .is_err()
        {
            *self = Self::open().await;
        }
    }
}

pub(crate) struct Bb8(bb8::Pool<AsyncPgConnection>);

impl Adapter for Bb8 {
    const NAME: &str = "bb8";

    async fn open() -> Self {
        let manager = AsyncDieselConnectionManager::new(database_url());
        Self(
            bb8::Pool::builder()
                .max_size(1)
                .build(manager)
                .await
                .unwrap(),
        )
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        calls!(self.0, call, key, options, body)
    }

    async fn check(&mut self) {
        let mut conn = self.0.get().await.unwrap();
        diesel::sql_query("SELECT 1")
            .execute(&mut conn)
            .await
            .unwrap();
    }
}

pub(crate) struct Deadpool(deadpool::Pool<AsyncPgConnection>);

impl Adapter for Deadpool {
    const NAME: &str = "deadpool";

    async fn open() -> Self {
        let manager = AsyncDieselConnectionManager::new(database_url());
        Self(
            deadpool::Pool::builder(manager)
                .max_size(1)
                .build()
                .unwrap(),
        )
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        calls!(self.0, call, key, options, body)
    }

    async fn check(&mut self) {
        let mut conn = self.0.get().await.unwrap();
        diesel::sql_query("SELECT 1")
            .execute(&mut conn)
            .await
            .unwrap();
    }
}
