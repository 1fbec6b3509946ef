//! Why a lock is not held.

use crate::backends::postgres;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::session::SessionError;

/// Why the lock is not held, while the clean-up runs.
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

    /// Of a statement that does not wait for the lock. If it timed out or was in a deadlock all the same, it waited for something else,
    /// such as a catalogue, and that says nothing about who has the lock.
    pub(super) fn from_statement(error: SessionError) -> Self {
        let failure = Self::from_session(error);
        match failure.kind {
            LockErrorKind::TimedOut | LockErrorKind::Deadlock => Self {
                kind: LockErrorKind::Database,
                ..failure
            },
            _ => failure,
        }
    }

    /// The same failure with the kind of another error that came of asking again.
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
        if let Some(context) = self.context {
            error = error.with_context(context);
        }
        match self.source {
            Some(source) => error.with_source(source.into_source()),
            None => error,
        }
    }

    pub(super) fn session_ended(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(SessionError::is_disconnected)
    }

    /// Whether the client hides the server's code, so that the kind is not known.
    pub(super) fn hides_sqlstate(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|source| source.code().is_none())
    }
}
