//! What is tested: each way to a connection, behind one face.

use std::future::Future;

use advisory_locking::session::AsyncLockSession;
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockKey,
    LockOptions,
};
use diesel::result::Error;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use crate::pools::{Pool, answers};

/// The calls that take a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Acquire,
    TryAcquire,
    With,
    TryWith,
    WithTransaction,
    TryWithTransaction,
    InTransaction,
    TryInTransaction,
}

pub(crate) const CALLS: [Call; 8] = [
    Call::Acquire,
    Call::TryAcquire,
    Call::With,
    Call::TryWith,
    Call::WithTransaction,
    Call::TryWithTransaction,
    Call::InTransaction,
    Call::TryInTransaction,
];

/// A way to a connection, with one connection in all.
pub(crate) trait Adapter: Sized + Send {
    const NAME: &str;

    fn open(url: &str) -> impl Future<Output = Self> + Send;

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
        .map_err(failed)
}

/// An error of the client's, or the lock's own that travelled in one.
fn failed(error: Error) -> LockError {
    match error {
        Error::QueryBuilderError(inner) => match inner.downcast::<LockError>() {
            Ok(error) => *error,
            Err(inner) => LockError::new(LockErrorKind::Database).with_source(inner),
        },
        error => LockError::new(LockErrorKind::Database).with_source(error),
    }
}

/// The calls that a pool has too.
macro_rules! calls {
    ($conn:expr, $call:expr, $key:expr, $options:expr, $in_transaction:expr) => {
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
            Call::With => $conn.with_advisory_lock($key, $options, body).await,
            Call::TryWith => $conn
                .try_with_advisory_lock($key, $options, body)
                .await
                .map(drop),
            Call::WithTransaction => $conn.with_advisory_xact_lock($key, $options, body).await,
            Call::TryWithTransaction => $conn
                .try_with_advisory_xact_lock($key, $options, body)
                .await
                .map(drop),
            Call::InTransaction | Call::TryInTransaction => $in_transaction,
        }
    };
}

pub(crate) use calls;

/// The calls inside a transaction of the caller's, on a connection.
async fn in_transaction(
    conn: &mut AsyncPgConnection,
    call: Call,
    key: &LockKey,
    options: LockOptions,
) -> Result<(), LockError> {
    conn.transaction(async |conn| {
        if matches!(call, Call::TryInTransaction) {
            conn.try_acquire_advisory_xact_lock(key, options).await?;
        } else {
            conn.acquire_advisory_xact_lock(key, options).await?;
        }
        Ok(())
    })
    .await
    .map_err(failed)
}

pub(crate) struct Borrowed {
    conn: AsyncPgConnection,
    url: String,
}

impl Adapter for Borrowed {
    const NAME: &str = "&mut AsyncPgConnection";

    async fn open(url: &str) -> Self {
        Self {
            conn: connect(url).await,
            url: url.to_owned(),
        }
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        let conn = &mut self.conn;
        calls!(conn, call, key, options, {
            in_transaction(conn, call, key, options).await
        })
    }

    async fn check(&mut self) {
        refresh(&mut self.conn, &self.url).await;
    }
}

/// A pool, and its connections taken by the pool's own methods.
pub(crate) struct Pooled<P>(P);

impl<P: Pool> Adapter for Pooled<P> {
    const NAME: &str = P::NAME;

    async fn open(url: &str) -> Self {
        Self(P::open(url).await)
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        calls!(self.0, call, key, options, {
            let mut conn = self.0.checkout().await.unwrap();
            in_transaction(&mut conn, call, key, options).await
        })
    }

    async fn check(&mut self) {
        answers(&self.0).await;
    }
}

pub(crate) async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url).await.unwrap()
}

/// A connection nobody can replace is closed for good if a statement of ours was dropped on it.
pub(crate) async fn refresh(conn: &mut AsyncPgConnection, url: &str) {
    let transaction = AsyncLockSession::session_transaction_state(conn);
    let unfit = transaction.is_broken() || transaction.is_open_on_server();
    if unfit || !works(conn).await {
        *conn = connect(url).await;
    }
}

pub(crate) async fn works(conn: &mut AsyncPgConnection) -> bool {
    diesel::sql_query("SELECT 1").execute(conn).await.is_ok()
}
