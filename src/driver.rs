//! Drivers: they perform the actions of a machine on a session.
//!
//! # Implementation details
//!
//! `drive` passes each event to the machine and performs the action that the machine returns, until
//! the machine is done. There are two drivers, one for blocking and one for async sessions. Both
//! perform one action at a time, and neither decides anything.
//!
//! With the feature `testing`, `run_acquire` and `run_release` replace a session without locks
//! by a simulated session, inside a test scope. The machines run on it as on PostgreSQL.
//!
//! A drop guard covers the time in which an action is in flight. If the client library panics, or
//! if the future is dropped, the state of the session is unknown. The guard then terminates the
//! session. So no pool hands out a connection that may hold a lock.

#[cfg(feature = "_async")]
pub(crate) mod asynchronous;
pub(crate) mod blocking;

use std::thread;
use std::time::Instant;

use crate::backends::postgres::classify;
use crate::error::{LockError, LockErrorKind};
use crate::events::RequestRecord;
use crate::lock_report::LockReport;
use crate::observer::contained;
use crate::options::LockOptions;
use crate::protocol::{Action, Grant, SessionSnapshot};
use crate::server_report::{LockSupport, ServerReport};
use crate::session::{Row, SessionError, TransactionState};

/// Runs the action of a destructor. During a panic a second panic would abort the process, so it is
/// caught then.
pub(crate) fn run_in_drop(act: impl FnOnce()) {
    if thread::panicking() {
        contained(act);
    } else {
        act();
    }
}

/// Records that the request waits, if this action begins a wait.
fn record_wait<T>(record: Option<&mut RequestRecord>, action: &Action<T>) {
    let Some(record) = record else { return };
    if action.waits_on_server() {
        record.waits();
    } else if matches!(action, Action::Sleep(_)) {
        // A machine pauses after a contended attempt only.
        record.polls();
    }
}

/// Reads the reply to a statement that reports locks.
fn parse_report(reply: Result<Row, SessionError>) -> Result<Vec<LockReport>, LockError> {
    let error = |error: SessionError| {
        LockError::new(classify(error.code())).with_source(error.into_source())
    };
    let texts = reply.and_then(Row::into_texts).map_err(error)?;
    LockReport::parse(texts).ok_or_else(|| error(SessionError::new("a malformed lock report")))
}

/// Checks that a failed statement would not abort a transaction.
fn check_identify(snapshot: &SessionSnapshot) -> Result<(), LockError> {
    if snapshot.transaction.is_open_on_server() {
        return Err(LockError::new(LockErrorKind::InTransaction).with_context(
            "a server may refuse the statement that identifies it, which would abort the transaction",
        ));
    }
    Ok(())
}

/// Reads the reply to the statement that identifies the server and tries a lock.
fn parse_identity(reply: Result<Row, SessionError>) -> Result<ServerReport, SessionError> {
    let texts = reply.and_then(Row::into_texts)?;
    ServerReport::parse(texts)
        .ok_or_else(|| SessionError::new("a malformed identity of the server"))
}

/// Reads the reply to the statement that returns the version only, after the first was refused.
fn parse_version(
    reply: Result<Row, SessionError>,
    refused: SessionError,
) -> Result<ServerReport, LockError> {
    let kind = classify(refused.code());
    // Any other error, such as a missing permission, says nothing about the locks.
    let support = match kind {
        LockErrorKind::Unsupported => LockSupport::Absent,
        _ => LockSupport::Unknown,
    };
    let texts = reply.and_then(Row::into_texts).ok();
    texts
        .and_then(|texts| ServerReport::without_locks(texts, support))
        .ok_or_else(|| LockError::new(kind).with_source(refused.into_source()))
}

/// Returns whether an error is to contain the holders of the lock.
///
/// A transaction may be aborted, and a report that fails would abort it. So there is no report in
/// one.
fn reports_holders(
    error: &LockError,
    options: &LockOptions,
    transaction: TransactionState,
) -> bool {
    options.reports_holders(error.kind()) && !transaction.is_open_on_server()
}

/// Adds the holders of a report about one key to an error.
fn add_holders(error: LockError, reports: Option<Vec<LockReport>>) -> LockError {
    match reports.and_then(|reports| reports.into_iter().next()) {
        Some(report) => error.with_holders(report.holders),
        None => error,
    }
}

/// Sends the event of a request's end, and attaches the record of a grant to it.
fn end_request(request: RequestRecord, outcome: &mut Result<Grant, LockError>, now: Instant) {
    match outcome {
        Ok(grant) => grant.record = request.granted(grant.pid, now),
        Err(error) => request.not_granted(error, now),
    }
}
