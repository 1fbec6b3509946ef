//! Drivers: they perform the actions of a machine on a session.
//!
//! # Implementation details
//!
//! `drive` passes each event to the machine and performs the action that the machine returns, until
//! the machine is done. There are two drivers, one for blocking and one for async sessions. Both
//! perform one action at a time, and neither decides anything.
//!
//! With the feature `testing`, `drive_acquire` and `drive_release` replace a session without locks
//! by a simulated session, inside a test scope. The machines run on it as on PostgreSQL.
//!
//! A drop guard covers the time in which an action is in flight. If the client library panics, or
//! if the future is dropped, the state of the session is unknown. The guard then terminates the
//! session. So no pool hands out a connection that may hold a lock.

#[cfg(feature = "_async")]
pub(crate) mod asynchronous;
pub(crate) mod blocking;

use crate::backends::postgres::classify;
use crate::error::LockError;
use crate::lock_report::LockReport;
use crate::session::{Row, SessionError};

/// Reads the reply to a statement that reports locks.
fn parse_report(reply: Result<Row, SessionError>) -> Result<Vec<LockReport>, LockError> {
    let error = |error: SessionError| {
        LockError::new(classify(error.code())).with_source(error.into_source())
    };
    let texts = reply.and_then(Row::into_texts).map_err(error)?;
    LockReport::parse(texts).ok_or_else(|| error(SessionError::new("a malformed lock report")))
}

/// Adds the holders of a report about one key to an error.
fn add_holders(error: LockError, reports: Option<Vec<LockReport>>) -> LockError {
    match reports.and_then(|reports| reports.into_iter().next()) {
        Some(report) => error.with_holders(report.holders),
        None => error,
    }
}
