//! Release of a dropped guard, until its reply: [`QueuedRelease`].

use crate::error::{LockError, LockErrorKind};
use crate::events::GrantRecord;
use crate::session::SessionError;

/// Release that a dropped guard has queued. It logs the reply, which no caller receives.
///
/// An adapter passes the reply to [`replied`](Self::replied). If it reads no replies of queued
/// messages, it calls [`unread`](Self::unread). Dropping it logs that the session is terminated.
#[derive(Debug)]
pub struct QueuedRelease(Option<GrantRecord>);

impl QueuedRelease {
    pub(crate) const fn new(record: Option<GrantRecord>) -> Self {
        Self(record)
    }

    /// Logs the reply to the first message of the release.
    pub fn replied(self, reply: Result<(), SessionError>) {
        self.ended(reply.map_err(|error| {
            if error.is_disconnected() {
                LockError::new(LockErrorKind::Lost).with_source(error.into_source())
            } else {
                LockError::new(LockErrorKind::Database)
                    .with_context("the release statement failed, so the session was terminated")
                    .with_source(error.into_source())
            }
        }));
    }

    /// Logs that the release is queued, and that its reply will not be read.
    pub fn unread(mut self) {
        if let Some(record) = self.0.take() {
            record.queued();
        }
    }

    /// Logs that the release failed, without an error of the client.
    pub(crate) fn failed(self, kind: LockErrorKind) {
        self.ended(Err(LockError::new(kind)));
    }

    fn ended(mut self, result: Result<(), LockError>) {
        if let Some(record) = self.0.take() {
            record.ended_without_caller(result);
        }
    }
}
