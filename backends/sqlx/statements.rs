//! Statements and scripts of this crate on a connection of sqlx.

use std::sync::atomic::{AtomicBool, Ordering};

use ::sqlx::postgres::PgQueryResult;
use ::sqlx::{AssertSqlSafe, Connection, Error, Executor, PgConnection};

use super::error::{code, is_disconnected};
use super::values::{arguments, decode_row};
use crate::backends::postgres::lost_statements::{is_statement_lost, may_abort_transaction};
use crate::session::{Row, Statement, StatementKind};

/// Reads all outstanding replies, and ignores the errors of dropped statements.
///
/// sqlx sends a statement only after that. So a statement that follows was certainly sent once it
/// has been polled, and its error is its own. Nothing is sent, so a connection without an
/// outstanding reply needs no round trip. `flush` is a hidden method of sqlx's trait; a `ping` in
/// its place costs a round trip.
pub(crate) async fn drain(conn: &mut PgConnection) -> Result<(), Error> {
    // Each error of a dropped statement arrives as the error of one call.
    while let Err(error) = conn.flush().await {
        if code(&error).is_none() || is_disconnected(&error) {
            return Err(error);
        }
    }
    Ok(())
}

/// Runs a lock statement.
///
/// The session may have lost its prepared statements, by `DISCARD ALL` in a body or in a hook of
/// the pool. Then sqlx's cache is cleared, and the statement, which did not run, is prepared again.
pub(crate) async fn run_statement(
    conn: &mut PgConnection,
    statement: &Statement,
    in_transaction: bool,
) -> Result<Row, Error> {
    let is_text = statement.kind().is_some() && is_without_cache(conn)
        || may_abort_transaction(statement, || in_transaction);
    let mut row = if is_text {
        fetch_unprepared(conn, statement.simple_sql()).await
    } else {
        fetch_prepared(conn, statement).await
    };
    let code = row.as_ref().err().and_then(code);
    if is_statement_lost(code) {
        conn.clear_cached_statements().await?;
        // The error has aborted a transaction, which rejects every further statement.
        if !in_transaction {
            row = fetch_prepared(conn, statement).await;
        }
    }
    // Not held: perhaps because of `DISCARD ALL`. The application's statements are then lost, too.
    let is_release = matches!(statement.kind(), Some(StatementKind::Release { .. }));
    if is_release && row.as_ref().is_ok_and(Row::is_false) {
        conn.clear_cached_statements().await?;
    }
    row
}

/// Set once a connection of this process has no cache of statements.
static ANY_WITHOUT_CACHE: AtomicBool = AtomicBool::new(false);

/// Returns whether the connection may have no cache of statements.
///
/// With a capacity of 0, sqlx 0.9.0 names each statement and closes none. A connection does not
/// show the capacity, so one statement of the process finds that there is no cache. From then on,
/// no statement of this crate has a name while the cache of its connection is empty.
fn is_without_cache(conn: &PgConnection) -> bool {
    conn.cached_statements_size() == 0 && ANY_WITHOUT_CACHE.load(Ordering::Relaxed)
}

async fn fetch_prepared(conn: &mut PgConnection, statement: &Statement) -> Result<Row, Error> {
    let is_named = statement.is_cacheable() && !is_without_cache(conn);
    let arguments = arguments(statement.binds())?;
    let query = ::sqlx::query_with(statement.sql(), arguments).persistent(is_named);
    let row = conn.fetch_optional(query).await?;
    if is_named && conn.cached_statements_size() == 0 {
        ANY_WITHOUT_CACHE.store(true, Ordering::Relaxed);
    }
    decode_row(&row.ok_or(Error::RowNotFound)?)
}

/// Sends text as one simple-query message, and returns its row.
pub(crate) async fn fetch_unprepared(conn: &mut PgConnection, sql: String) -> Result<Row, Error> {
    let row = ::sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(conn);
    decode_row(&row.await?.ok_or(Error::RowNotFound)?)
}

/// Sends text as one simple-query message, and returns the text in its row.
#[cfg(feature = "sea-orm")]
pub(crate) async fn fetch_text(
    conn: &mut PgConnection,
    sql: &str,
) -> Result<Option<String>, Error> {
    let row = ::sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(conn).await?;
    ::sqlx::Row::try_get(&row, 0)
}

/// Sends text as one simple-query message.
pub(crate) async fn send(conn: &mut PgConnection, sql: &str) -> Result<PgQueryResult, Error> {
    ::sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await
}
