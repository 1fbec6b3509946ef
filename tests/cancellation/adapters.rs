//! The adapters under test: each way to a connection, behind one trait.

use std::future::Future;
use std::time::Duration;

use advisory_locking::session::AsyncLockSession;
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockKey,
    LockOptions,
};
use diesel::result::{ConnectionError, ConnectionResult, Error};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use crate::pools::{Pool, assert_works};
use crate::timeouts::LIMIT;
use crate::tokio_postgres;

/// A call that acquires a lock.
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

/// A connection, or a pool of one connection.
pub(crate) trait Adapter: Sized + Send {
    const NAME: &str;

    /// Limit of a wait that most rounds reach. That of a pool covers the checkout too.
    const SHORT_LIMIT: Duration = Duration::from_millis(20);

    /// `true` if a commit that is dropped in flight sends a `ROLLBACK`, as sqlx does.
    const ROLLS_BACK_BEHIND_A_COMMIT: bool = false;

    fn open(url: &str) -> impl Future<Output = Self> + Send;

    /// Makes a call. Its body runs a statement of a few milliseconds.
    fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Sends the messages that the client has queued for a transaction of the caller.
    fn flush(&mut self, _call: Call) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Asserts that a connection works. A borrowed connection may also be closed.
    fn check(&mut self) -> impl Future<Output = ()> + Send;
}

async fn body(conn: &mut AsyncPgConnection) -> Result<(), LockError> {
    diesel::sql_query("SELECT pg_sleep(0.005)")
        .execute(conn)
        .await
        .map(drop)
        .map_err(failed)
}

/// Returns the lock error inside the client's error, or wraps the client's error.
fn failed(error: Error) -> LockError {
    match error {
        Error::QueryBuilderError(inner) => match inner.downcast::<LockError>() {
            Ok(error) => *error,
            Err(inner) => LockError::new(LockErrorKind::Database).with_source(inner),
        },
        error => LockError::new(LockErrorKind::Database).with_source(error),
    }
}

/// Makes a call that pools have too.
macro_rules! calls {
    ($conn:expr, $call:expr, $key:expr, $options:expr, $in_transaction:expr) => {
        calls!($conn, $call, $key, $options, body, $in_transaction)
    };
    ($conn:expr, $call:expr, $key:expr, $options:expr, $body:expr, $in_transaction:expr) => {
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
            Call::InTransaction | Call::TryInTransaction => $in_transaction,
        }
    };
}

pub(crate) use calls;

/// Makes a call inside the caller's transaction, on a connection.
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
    const SHORT_LIMIT: Duration = LIMIT;

    async fn open(url: &str) -> Self {
        Self {
            conn: connect_async(url).await,
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

/// A pool, through its own methods.
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
        assert_works(&self.0).await;
    }
}

pub(crate) async fn connect_async(url: &str) -> AsyncPgConnection {
    establish(url).await.unwrap()
}

/// Connects as diesel-async does, which supports no TLS by itself.
pub(crate) async fn establish(url: &str) -> ConnectionResult<AsyncPgConnection> {
    if !tokio_postgres::requires_tls(url) {
        return AsyncPgConnection::establish(url).await;
    }
    let (config, connector) = tokio_postgres::config(url);
    let connected = config.connect(connector).await;
    let (client, connection) =
        connected.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}

/// Replaces a connection that was closed because a statement of the library was dropped on it.
pub(crate) async fn refresh(conn: &mut AsyncPgConnection, url: &str) {
    let transaction = AsyncLockSession::session_transaction_state(conn);
    let broken = transaction.is_broken() || transaction.is_open_on_server();
    if broken || !works(conn).await {
        *conn = connect_async(url).await;
    }
}

pub(crate) async fn works(conn: &mut AsyncPgConnection) -> bool {
    diesel::sql_query("SELECT 1").execute(conn).await.is_ok()
}
