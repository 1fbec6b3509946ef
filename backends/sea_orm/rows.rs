//! Rows of a body's statement, as they arrive.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use sea_orm::{DatabaseExecutor, DbErr, QueryResult, Statement, StreamTrait};
use tokio::sync::{OwnedMutexGuard, watch};

use super::error::query_error;
use super::shared_stream::SharedStream;
use super::state::{InFlight, PinnedState};
use super::statements::to_sqlx_query;

/// Stream of a connection that is open now, or the last one.
pub(super) type OpenStream = watch::Sender<Option<Arc<RowSource>>>;

/// Rows of a statement, whose source locks the state of the connection.
type RowSource = SharedStream<Result<QueryResult, DbErr>>;

/// Rows of a statement, which continue in memory if another statement needs the connection.
#[derive(Debug)]
pub(super) struct StatementRows {
    rows: Arc<RowSource>,
    open: Arc<OpenStream>,
}

impl StatementRows {
    /// Runs a statement at the first poll. The connection is free again after the last row.
    pub(super) fn new(
        state: OwnedMutexGuard<PinnedState>,
        statement: Statement,
        open: Arc<OpenStream>,
    ) -> Self {
        let rows = Arc::new(SharedStream::new(rows(state, statement)));
        open.send_replace(Some(Arc::clone(&rows)));
        Self { rows, open }
    }
}

impl Stream for StatementRows {
    type Item = Result<QueryResult, DbErr>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.poll_next(context)
    }
}

impl Drop for StatementRows {
    fn drop(&mut self) {
        // The next user of the connection reads the rest of the reply.
        self.rows.end(None);
        self.open.send_if_modified(|open| {
            let is_this = open
                .as_ref()
                .is_some_and(|open| Arc::ptr_eq(open, &self.rows));
            if is_this {
                *open = None;
            }
            is_this
        });
    }
}

/// Runs a statement on a locked connection, which is freed after the last row.
fn rows(
    mut state: OwnedMutexGuard<PinnedState>,
    statement: Statement,
) -> BoxStream<'static, Result<QueryResult, DbErr>> {
    async_stream::try_stream! {
        if let Some(executor) = state.executor()? {
            let mut rows = match &executor {
                DatabaseExecutor::Connection(native) => native.stream_raw(statement).await?.boxed(),
                DatabaseExecutor::Transaction(native) => native.stream_raw(statement).await?.boxed(),
                DatabaseExecutor::OwnedTransaction(native) => {
                    native.stream_raw(statement).await?.boxed()
                }
            };
            while let Some(row) = rows.try_next().await? {
                yield row;
            }
            return;
        }
        let query = to_sqlx_query(&statement).map_err(query_error)?;
        // If the stream is dropped before its end, this stays set, and the next user of the
        // connection drains the rest of the rows.
        state.in_flight = InFlight::Reply;
        let read = {
            let mut rows = query.fetch(state.postgres()?);
            loop {
                match rows.try_next().await {
                    Ok(Some(row)) => yield row.into(),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        state.finish(read).map_err(query_error)?;
    }
    .boxed()
}
