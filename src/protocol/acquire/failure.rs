//! Reason of a failed acquire, kept during the clean-up.

use crate::backends::postgres;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::session::SessionError;

/// Reason of a failed acquire.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: LockErrorKind,
    context: Option<&'static str>,
    pub(super) source: Option<SessionError>,
}

impl Failure {
    pub(super) const fn new(kind: LockErrorKind) -> Self {
        Self {
            kind,
            context: None,
            source: None,
        }
    }

    pub(super) fn from_session(error: SessionError) -> Self {
        Self {
            kind: postgres::classify(error.code()),
            context: None,
            source: Some(error),
        }
    }

    /// Creates the failure of a statement that does not wait for the lock.
    pub(super) fn from_statement(error: SessionError) -> Self {
        Self {
            kind: postgres::classify_attempt(error.code()),
            context: None,
            source: Some(error),
        }
    }

    /// Replaces the kind by that of `error`, which a second attempt returned. The source remains
    /// the error of the first attempt.
    pub(super) fn with_revealed_kind(self, error: SessionError) -> Self {
        let kind = Self::from_statement(error).kind;
        Self { kind, ..self }
    }

    pub(super) fn with_context(self, context: &'static str) -> Self {
        Self {
            context: Some(context),
            ..self
        }
    }

    pub(super) fn into_error(self, key: &LockKey) -> LockError {
        let mut error = LockError::new(self.kind).with_key(key);
        let code = self.source.as_ref().and_then(SessionError::code);
        if let Some(context) = self.context.or_else(|| postgres::hint(code)) {
            error = error.with_context(context);
        }
        match self.source {
            Some(source) => error.with_source(source.into_source()),
            None => error,
        }
    }

    /// Returns `true` if the client reports the end of the session, which released its locks.
    pub(super) fn session_ended(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(SessionError::is_disconnected)
    }

    /// Returns `true` if the client library hides the SQLSTATE, so that the kind is unknown.
    pub(super) fn hides_sqlstate(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|source| source.code().is_none())
    }
}
