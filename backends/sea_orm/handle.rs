//! Handles of a body: [`PinnedConnection`] and [`PinnedTransaction`].

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult,
    Statement, StreamTrait, TransactionError, TransactionOptions, TransactionSession,
    TransactionTrait,
};

use super::open_stream::StreamReader;
use super::pinned::{LockedState, SharedConnection};
use super::statements::RowResult;
use super::transaction_log::TransactionId;

/// Connection that holds the lock, and on which the body runs.
///
/// It implements [`ConnectionTrait`], [`TransactionTrait`] and [`StreamTrait`], so every function
/// with a parameter `&impl ConnectionTrait` takes it: entities, relations, paginators, loaders, raw
/// statements. It is *one* connection of the pool:
///
/// * Concurrent statements run one after the other. A statement beside an open stream first moves
///   the remaining rows into memory.
/// * While a transaction is open on the connection, every statement on the connection runs in it.
///
/// On a mock or a proxy, it runs statements on the [`DatabaseConnection`] itself.
///
/// [`DatabaseConnection`]: sea_orm::DatabaseConnection
///
/// # Functions that do not take it
///
/// A function with a parameter `&DatabaseConnection` does not take it. Make such a function generic
/// over [`ConnectionTrait`], or pass the `DatabaseConnection` itself, of which a body may capture a
/// clone. Its statements run on *another* connection of the pool, outside the body's transaction.
/// In a pool of one connection they time out.
#[derive(Debug)]
pub struct PinnedConnection {
    pub(super) shared: SharedConnection,
    /// Transactions that this crate began.
    pub(super) began: Vec<TransactionId>,
}

impl PinnedConnection {
    /// Returns the kind of the database.
    #[must_use]
    pub fn get_database_backend(&self) -> DbBackend {
        // An inherent method, because two traits have one of this name, and a call would be
        // ambiguous.
        self.shared.db.get_database_backend()
    }

    const fn transaction(&self) -> Option<TransactionId> {
        None
    }
}

/// Transaction that a body began on a [`PinnedConnection`], or a savepoint in one.
///
/// It is rolled back when it is dropped, as SeaORM's [`DatabaseTransaction`] is. There are two
/// differences:
///
/// * The commit of an aborted transaction is an error. SeaORM 2.0.4 rolls back and returns `Ok`.
/// * After the end of an outer transaction, every statement is an error.
///
/// [`DatabaseTransaction`]: sea_orm::DatabaseTransaction
#[derive(Debug)]
#[must_use = "a transaction is rolled back when it is dropped"]
pub struct PinnedTransaction {
    pub(super) shared: SharedConnection,
    pub(super) id: TransactionId,
}

impl PinnedTransaction {
    const fn transaction(&self) -> Option<TransactionId> {
        Some(self.id)
    }

    /// Commits the transaction, as [`TransactionSession::commit`] does.
    ///
    /// # Errors
    ///
    /// The server's error, or an error if the transaction was aborted or an outer transaction has
    /// ended. The transaction has ended in any case.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the commit is sent, the transaction is rolled back. Later it
    /// is committed or rolled back: the next statement on the connection, or the release, waits for
    /// the reply.
    pub async fn commit(self) -> Result<(), DbErr> {
        let mut state = self.shared.lock(None).await?;
        state.commit(self.id, None).await
    }

    /// Rolls the transaction back, as [`TransactionSession::rollback`] does.
    ///
    /// It does nothing if an outer transaction has ended.
    ///
    /// # Errors
    ///
    /// The server's error. On PostgreSQL the connection is closed then, which ends the transaction.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next statement on the connection, or the release, completes the rollback.
    pub async fn rollback(self) -> Result<(), DbErr> {
        let mut state = self.shared.lock(None).await?;
        state.roll_back(self.id).await
    }
}

impl Drop for PinnedTransaction {
    fn drop(&mut self) {
        self.shared.drop_transaction(self.id);
    }
}

#[async_trait]
impl TransactionSession for PinnedTransaction {
    async fn commit(self) -> Result<(), DbErr> {
        Self::commit(self).await
    }

    async fn rollback(self) -> Result<(), DbErr> {
        Self::rollback(self).await
    }
}

/// Rows of a statement, in the order of their arrival.
///
/// Another statement on the connection first moves the remaining rows into memory.
#[derive(Debug)]
pub struct RowStream<'r>(StreamReader<RowResult>, PhantomData<&'r ()>);

impl Stream for RowStream<'_> {
    type Item = RowResult;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RowResult>> {
        self.0.poll_next_unpin(context)
    }
}

/// Implements SeaORM's traits for a handle through its connection.
macro_rules! connection_traits {
    ($($handle:ty),*) => {$(
        impl $handle {
            pub(super) async fn lock_in_body(&self) -> Result<LockedState<'_>, DbErr> {
                self.shared.lock(self.transaction()).await
            }
        }

        #[async_trait]
        impl ConnectionTrait for $handle {
            fn get_database_backend(&self) -> DbBackend {
                self.shared.db.get_database_backend()
            }

            async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
                self.lock_in_body().await?.execute(statement).await
            }

            async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
                self.lock_in_body().await?.execute_unprepared(sql).await
            }

            async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
                self.lock_in_body().await?.query_one(statement).await
            }

            async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
                self.lock_in_body().await?.query_all(statement).await
            }

            fn is_mock_connection(&self) -> bool {
                self.shared.db.is_mock_connection()
            }
        }

        impl StreamTrait for $handle {
            type Stream<'a> = RowStream<'a>;

            fn get_database_backend(&self) -> DbBackend {
                self.shared.db.get_database_backend()
            }

            fn stream_raw<'a>(
                &'a self,
                statement: Statement,
            ) -> Pin<Box<dyn Future<Output = Result<RowStream<'a>, DbErr>> + Send + 'a>> {
                Box::pin(async move {
                    let rows = self.shared.stream(self.transaction(), statement).await?;
                    Ok(RowStream(rows, PhantomData))
                })
            }
        }

        #[async_trait]
        impl TransactionTrait for $handle {
            type Transaction = PinnedTransaction;

            async fn begin(&self) -> Result<PinnedTransaction, DbErr> {
                self.begin_with_options(TransactionOptions::default()).await
            }

            async fn begin_with_config(
                &self,
                isolation_level: Option<IsolationLevel>,
                access_mode: Option<AccessMode>,
            ) -> Result<PinnedTransaction, DbErr> {
                self.begin_with_options(TransactionOptions {
                    isolation_level,
                    access_mode,
                    ..TransactionOptions::default()
                })
                .await
            }

            async fn begin_with_options(&self, options: TransactionOptions) -> Result<PinnedTransaction, DbErr> {
                let id = self.lock_in_body().await?.begin(&options).await?;
                let shared = self.shared.clone();
                Ok(PinnedTransaction { shared, id })
            }

            async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
            where
                F: for<'c> FnOnce(
                        &'c PinnedTransaction,
                    ) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
                    + Send,
                T: Send,
                E: fmt::Display + fmt::Debug + Send,
            {
                self.transaction_with_config(callback, None, None).await
            }

            async fn transaction_with_config<F, T, E>(
                &self,
                callback: F,
                isolation_level: Option<IsolationLevel>,
                access_mode: Option<AccessMode>,
            ) -> Result<T, TransactionError<E>>
            where
                F: for<'c> FnOnce(
                        &'c PinnedTransaction,
                    ) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
                    + Send,
                T: Send,
                E: fmt::Display + fmt::Debug + Send,
            {
                let transaction = self
                    .begin_with_config(isolation_level, access_mode)
                    .await
                    .map_err(TransactionError::Connection)?;
                let result = callback(&transaction).await;
                let ended = match &result {
                    Ok(_) => transaction.commit().await,
                    Err(_) => transaction.rollback().await,
                };
                ended.map_err(TransactionError::Connection)?;
                result.map_err(TransactionError::Transaction)
            }
        }
    )*};
}
connection_traits!(PinnedConnection, PinnedTransaction);
