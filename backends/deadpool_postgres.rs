//! deadpool-postgres: `Pool`, and the connections in it.
//!
//! [`deadpool_postgres::Pool`] has the methods of
//! [`AsyncPooledAdvisoryLocking`](crate::AsyncPooledAdvisoryLocking). The body receives a
//! [`ClientWrapper`], with the methods of [`tokio_postgres::Client`] and its cache of prepared
//! statements. Lock statements use that cache too. A transaction of deadpool-postgres dereferences
//! to that of tokio-postgres, so it has the methods for transaction-level locks.
//!
//! Transactions, dropped futures and errors work as for [`tokio_postgres`](super::tokio_postgres).
//!
//! ```no_run
//! use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions};
//! use deadpool_postgres::{Manager, Pool};
//! use tokio_postgres::{Config, NoTls};
//!
//! type Error = Box<dyn std::error::Error + Send + Sync>;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Error> {
//! let config: Config = "host=localhost user=app".parse()?;
//! let pool = Pool::builder(Manager::new(config, NoTls)).build()?;
//! pool.with_advisory_lock("refresh-ranking", LockOptions::no_wait(), async |client| {
//!     client.execute("REFRESH MATERIALIZED VIEW ranking", &[]).await?;
//!     Ok::<_, Error>(())
//! })
//! .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Broken connections
//!
//! A returned connection enters the pool without a check. At its next checkout, deadpool-postgres
//! drops it if its client is closed, with every
//! [`RecyclingMethod`](::deadpool_postgres::RecyclingMethod). This crate closes the client when it
//! terminates the session. The methods of the pool do not return it: see
//! [`deadpool`](super::deadpool).
//!
//! If the server has closed a connection a moment ago, its client may not know it yet. Then the
//! next call on it returns [`Database`](crate::LockErrorKind::Database), unless the recycling
//! method is `Verified`, which checks each connection by a statement.

use std::ops::Deref;

use ::deadpool_postgres::ClientWrapper;

use super::postgres::lost_statements::{is_statement_lost, may_abort_transaction};
use super::tokio_postgres::client::{self, lock_session};
use super::tokio_postgres::error::session_error;
use super::tokio_postgres::values;
use crate::session::{Row, SessionError, Statement};

lock_session!(ClientWrapper,
    outer: 0,
    client: Self::deref,
    close: |wrapper: &mut Self| client::close(wrapper),
    query: query
);

/// Runs a statement.
///
/// The session may have lost its prepared statements, by `DISCARD ALL` in a body or as the
/// [`RecyclingMethod`](::deadpool_postgres::RecyclingMethod). Then the cache is cleared, and the
/// statement, which did not run, is prepared again.
async fn query(wrapper: &ClientWrapper, statement: &Statement) -> Result<Row, SessionError> {
    // A map of the process has the state.
    let in_transaction = || client::transaction_state(wrapper, 0).is_open();
    if !statement.is_cacheable() || may_abort_transaction(statement, in_transaction) {
        return client::query(wrapper, statement).await;
    }
    let row = query_prepared(wrapper, statement).await;
    let code = row.as_ref().err().and_then(SessionError::code);
    if !is_statement_lost(code) {
        return row;
    }
    wrapper.statement_cache.clear();
    // The error has aborted a transaction, which rejects every further statement.
    if in_transaction() {
        return row;
    }
    query_prepared(wrapper, statement).await
}

/// Runs a statement, which the cache of the connection prepares once.
async fn query_prepared(
    wrapper: &ClientWrapper,
    statement: &Statement,
) -> Result<Row, SessionError> {
    let binds: Vec<_> = statement.binds().collect();
    let (values, types): (Vec<_>, Vec<_>) = binds.iter().map(values::typed).unzip();
    let row = match wrapper.prepare_typed_cached(statement.sql(), &types).await {
        Ok(prepared) => wrapper.query_one(&prepared, &values).await,
        Err(error) => Err(error),
    };
    row.and_then(|row| values::binary_row(&row))
        .map_err(session_error)
}
