//! The handles a body runs on: [`PinnedConnection`] and [`PinnedTransaction`].

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, IsolationLevel,
    QueryResult, Statement, StreamTrait, TransactionError, TransactionOptions, TransactionSession,
    TransactionTrait,
};
use tokio::runtime::Handle;

use super::executor::{Executor, Rows};
use super::native::{NativeConnection, OpenTransactions};
use super::pinned::{PostgresConnection, TransactionId};
use crate::backends::RuntimeBound;

/// The connection a body runs on: the one that the lock is on.
///
/// A [`ConnectionTrait`], [`TransactionTrait`] and [`StreamTrait`], so it goes wherever `&impl ConnectionTrait` does: entities,
/// relations, paginators, loaders, raw statements. It is *one* connection of the pool, so what is run on it at the same time waits
/// for each other, and what is run on it while a transaction on it is open, runs in that transaction.
///
/// On a backend without locks it stands for the whole [`DatabaseConnection`].
///
/// [`DatabaseConnection`]: sea_orm::DatabaseConnection
///
/// # What does not take it
///
/// Functions whose parameter is `&DatabaseConnection`. Give them the `DatabaseConnection` itself, a clone of which a body may
/// capture: they run on *another* connection of the pool, outside the transaction if there is one, and a pool of one connection has
/// no other. Better, make such functions generic over [`ConnectionTrait`].
#[derive(Debug)]
pub struct PinnedConnection(pub(super) ConnectionInner);

#[derive(Debug)]
pub(super) enum ConnectionInner {
    Postgres(PostgresConnection),
    Native(NativeConnection),
}

impl PinnedConnection {
    /// The database behind it.
    #[must_use]
    pub fn get_database_backend(&self) -> DbBackend {
        // Both traits have a method of this name, so that neither can be called without naming its trait.
        self.executor().backend()
    }

    pub(super) fn executor(&self) -> Executor<'_> {
        match &self.0 {
            ConnectionInner::Postgres(pinned) => Executor::Postgres(pinned, None),
            ConnectionInner::Native(session) => session.executor(),
        }
    }
}

/// A transaction that a body began on a [`PinnedConnection`], or a savepoint in one.
///
/// It is to that connection what [`DatabaseTransaction`] is to SeaORM's, and is rolled back when it is dropped. Besides:
///
/// * The commit of an aborted transaction is an error. (SeaORM's rolls back, and reports success.)
/// * A transaction that is over because the one around it was ended refuses everything.
#[derive(Debug)]
#[must_use = "a transaction is rolled back when it is dropped"]
pub struct PinnedTransaction(pub(super) TransactionInner);

#[derive(Debug)]
pub(super) enum TransactionInner {
    Postgres(PostgresTransaction),
    Native(NativeTransaction),
}

/// SeaORM's own.
#[derive(Debug)]
pub(super) struct NativeTransaction {
    transaction: RuntimeBound<DatabaseTransaction>,
    open_transactions: Option<Arc<OpenTransactions>>,
}

/// Rolled back when it is dropped, unless it is over.
#[derive(Debug)]
pub(super) struct PostgresTransaction {
    pub(super) pinned: PostgresConnection,
    pub(super) id: TransactionId,
}

impl Drop for PostgresTransaction {
    fn drop(&mut self) {
        self.pinned.enqueue_rollback(self.id);
    }
}

impl PinnedTransaction {
    pub(super) const fn postgres(pinned: PostgresConnection, id: TransactionId) -> Self {
        Self(TransactionInner::Postgres(PostgresTransaction {
            pinned,
            id,
        }))
    }

    pub(super) fn native(
        transaction: DatabaseTransaction,
        open_transactions: Option<Arc<OpenTransactions>>,
    ) -> Self {
        Self(TransactionInner::Native(NativeTransaction {
            transaction: RuntimeBound::new(transaction, Handle::try_current().ok(), drop),
            open_transactions,
        }))
    }

    pub(super) fn executor(&self) -> Executor<'_> {
        match &self.0 {
            TransactionInner::Postgres(transaction) => {
                Executor::Postgres(&transaction.pinned, Some(transaction.id))
            }
            TransactionInner::Native(native) => Executor::Transaction(
                native.transaction.get_ref(),
                native.open_transactions.as_ref(),
            ),
        }
    }

    /// Commits the transaction. As [`TransactionSession::commit`], without the trait.
    ///
    /// # Errors
    ///
    /// The server's, also if the transaction was aborted. It is over in any case.
    pub async fn commit(self) -> Result<(), DbErr> {
        match self.0 {
            TransactionInner::Postgres(transaction) => {
                let mut state = transaction.pinned.lock().await?;
                state.commit(transaction.id).await
            }
            TransactionInner::Native(native) => native.transaction.into_inner().commit().await,
        }
    }

    /// Rolls the transaction back. As [`TransactionSession::rollback`], without the trait.
    ///
    /// # Errors
    ///
    /// The server's. The transaction is over in any case, or else the connection is.
    pub async fn rollback(self) -> Result<(), DbErr> {
        match self.0 {
            TransactionInner::Postgres(transaction) => {
                let mut state = transaction.pinned.lock().await?;
                state.roll_back(transaction.id).await
            }
            TransactionInner::Native(native) => native.transaction.into_inner().rollback().await,
        }
    }

    /// Ends it as its callback says.
    async fn finish<T, E>(self, result: Result<T, E>) -> Result<T, TransactionError<E>>
    where
        E: fmt::Display + fmt::Debug,
    {
        match &result {
            Ok(_) => self.commit().await,
            Err(_) => self.rollback().await,
        }
        .map_err(TransactionError::Connection)?;
        result.map_err(TransactionError::Transaction)
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

/// The rows of a statement, as they come. The connection is busy until it is dropped.
pub struct RowStream<'r>(Rows<'r>);

impl fmt::Debug for RowStream<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RowStream").finish_non_exhaustive()
    }
}

impl Stream for RowStream<'_> {
    type Item = Result<QueryResult, DbErr>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

macro_rules! connection_traits {
    ($($handle:ty),*) => {$(
        #[async_trait]
        impl ConnectionTrait for $handle {
            fn get_database_backend(&self) -> DbBackend {
                self.executor().backend()
            }

            async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
                self.executor().execute(statement).await
            }

            async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
                self.executor().execute_unprepared(sql).await
            }

            async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
                self.executor().query_one(statement).await
            }

            async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
                self.executor().query_all(statement).await
            }

            fn is_mock_connection(&self) -> bool {
                self.executor().is_mock()
            }
        }

        impl StreamTrait for $handle {
            type Stream<'a> = RowStream<'a>;

            fn get_database_backend(&self) -> DbBackend {
                self.executor().backend()
            }

            fn stream_raw<'a>(
                &'a self,
                statement: Statement,
            ) -> Pin<Box<dyn Future<Output = Result<RowStream<'a>, DbErr>> + Send + 'a>> {
                Box::pin(async move { self.executor().stream(statement).await.map(RowStream) })
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
                self.executor().begin(options).await
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
                transaction.finish(result).await
            }
        }
    )*};
}
connection_traits!(PinnedConnection, PinnedTransaction);
