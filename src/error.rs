//! Errors of lock operations: [`LockError`] and its kinds.

mod kind;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::kind::LockErrorKind;
use crate::key::LockKey;
use crate::lock_report::LockHolder;

/// Error of an acquire, of a release, or of a held lock that was lost.
///
/// [`kind`](Self::kind) states what happened and whether the lock is held. `Display` prints one
/// line: the kind with a hint, the context, the limit with the time waited, the key, and the first
/// of the [holders](Self::holders).
/// [`source`](StdError::source) is the error of the client library. An error of a lock manager may
/// have none: its context contains the text of the client's error. The [text of the
/// key](LockKey::text) may be personal data: see [`LockKey::redacted`].
///
/// Converts into the error types of this table, so that `?` works in a body with that error type.
/// The errors of tokio-postgres and postgres cannot contain another error. A body with these
/// clients returns `Box<dyn Error + Send + Sync>`, or a type of the application.
/// [`find`](Self::find) gets the `LockError` back, from these errors and from all that contain one:
///
/// | client | arrives as | except |
/// |---|---|---|
/// | Diesel | `diesel::result::Error::QueryBuilderError`, whose box downcasts to `LockError` | a failed commit, which arrives as Diesel's own error |
/// | sqlx | `sqlx::Error::Encode`, whose box downcasts to `LockError` | a failed commit, which arrives as sqlx's own error |
/// | SeaORM | `sea_orm::DbErr::TryIntoErr`, whose source downcasts to `LockError` | a failed commit, which arrives as SeaORM's own error |
/// | rusqlite | `rusqlite::Error::ToSqlConversionFailure`, whose box downcasts to `LockError` | a failed commit, which arrives as rusqlite's own error |
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockError, LockErrorKind};
///
/// let error = LockError::new(LockErrorKind::TimedOut);
/// assert!(error.is_contended() && !error.is_lost());
/// assert_eq!(error.to_string(), "the limit passed before the lock was granted");
/// ```
// Boxed, so that the result of each call is small: errors are rare.
pub struct LockError(Box<Inner>);

struct Inner {
    kind: LockErrorKind,
    key: Option<LockKey>,
    context: Option<Cow<'static, str>>,
    limit: Option<Duration>,
    waited: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    holders: Vec<LockHolder>,
}

impl LockError {
    /// Creates an error of a kind. Intended for adapters and tests.
    #[must_use]
    pub fn new(kind: LockErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            key: None,
            context: None,
            limit: None,
            waited: None,
            source: None,
            holders: Vec::new(),
        }))
    }

    /// Adds the key of the lock.
    #[must_use]
    pub fn with_key(mut self, key: &LockKey) -> Self {
        self.0.key = Some(key.clone());
        self
    }

    /// Sets the source, usually the error of the client library.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Replaces the kind.
    #[must_use]
    pub(crate) fn with_kind(mut self, kind: LockErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Adds context, which `Display` prints after the kind.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Cow<'static, str>>) -> Self {
        self.0.context = Some(context.into());
        self
    }

    /// Adds the sessions that hold the lock.
    #[must_use]
    pub(crate) fn with_holders(mut self, holders: Vec<LockHolder>) -> Self {
        self.0.holders = holders;
        self
    }

    /// Returns the sessions that held the lock just after the request failed.
    ///
    /// Empty for the kinds that [`report_holders`](crate::LockOptions::report_holders) does not
    /// list. Also empty if the holder released the lock in the meantime, or if the server did not
    /// reply. `Display` prints the first one.
    #[must_use]
    pub fn holders(&self) -> &[LockHolder] {
        &self.0.holders
    }

    /// Adds the limit of the call, if it has one, and the time that it waited.
    pub(crate) fn with_wait(mut self, limit: Option<Duration>, waited: Duration) -> Self {
        (self.0.limit, self.0.waited) = (limit, Some(waited));
        self
    }

    /// Returns the limit of the call: that of [`wait_up_to`](crate::LockOptions::wait_up_to).
    /// `None` unless the kind is [`TimedOut`](LockErrorKind::TimedOut) or
    /// [`Pool`](LockErrorKind::Pool).
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        self.0.limit
    }

    /// Returns the time that the call waited, for a connection of its pool and for the lock. `None`
    /// unless the kind is [`TimedOut`](LockErrorKind::TimedOut) or [`Pool`](LockErrorKind::Pool).
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        self.0.waited
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> LockErrorKind {
        self.0.kind
    }

    /// Returns the key of the lock; `None` if the error concerns no single key.
    #[must_use]
    pub fn key(&self) -> Option<&LockKey> {
        self.0.key.as_ref()
    }

    /// Returns `true` if another session holds the lock, or did so until the limit passed. True for
    /// [`HeldElsewhere`](LockErrorKind::HeldElsewhere) and [`TimedOut`](LockErrorKind::TimedOut),
    /// which the `try_` methods return as `None`.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        matches!(
            self.kind(),
            LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut
        )
    }

    /// Returns `true` if the caller must not rely on having held the lock: another session may have
    /// run at the same time. True for [`Lost`](LockErrorKind::Lost),
    /// [`NotHeld`](LockErrorKind::NotHeld) and [`SessionChanged`](LockErrorKind::SessionChanged).
    /// With `SessionChanged`, the lock may never have been granted.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(
            self.kind(),
            LockErrorKind::Lost | LockErrorKind::NotHeld | LockErrorKind::SessionChanged
        )
    }

    /// Returns the source as the client library's error type `E`.
    ///
    /// # Errors
    ///
    /// This error, unchanged, if its source is not an `E`.
    pub fn into_client_error<E: StdError + 'static>(mut self) -> Result<E, Self> {
        match self.0.source.take().map(|source| source.downcast::<E>()) {
            Some(Ok(error)) => Ok(*error),
            Some(Err(source)) => Err(self.with_source(source)),
            None => Err(self),
        }
    }

    /// Converts a failed commit into the client's own error, and any other error with `wrap`.
    #[allow(
        dead_code,
        reason = "not every client's error can contain a lock error"
    )]
    pub(crate) fn into_client_error_or<E: StdError + 'static>(
        self,
        wrap: impl FnOnce(Self) -> E,
    ) -> E {
        match self.kind() {
            // The failed commit is not the client's if the unit-test kit simulates it.
            LockErrorKind::CommitFailed => self.into_client_error().unwrap_or_else(wrap),
            _ => wrap(self),
        }
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.kind)?;
        if let Some(context) = &self.0.context {
            write!(formatter, ": {}", OneLine(context))?;
        }
        match (self.0.limit, self.0.waited) {
            (Some(limit), Some(waited)) => {
                write!(
                    formatter,
                    ": limit {}, waited {}",
                    Shown(limit),
                    Shown(waited)
                )?;
            }
            (None, Some(waited)) => write!(formatter, ": waited {}", Shown(waited))?,
            (_, None) => {}
        }
        if let Some(key) = &self.0.key {
            write!(formatter, ": {key}")?;
        }
        if let [first, others @ ..] = self.holders() {
            write!(formatter, ", held by {}", first.session)?;
            if !others.is_empty() {
                write!(formatter, " and {} more", others.len())?;
            }
        }
        Ok(())
    }
}

/// A context for a message, with its lines joined: the text of a client's error may have several.
struct OneLine<'c>(&'c str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.split(['\n', '\r']).map(str::trim);
        let mut separator = "";
        for line in lines.filter(|line| !line.is_empty()) {
            write!(formatter, "{separator}{line}")?;
            separator = "; ";
        }
        Ok(())
    }
}

/// A time for a message, in whole milliseconds.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = Duration::new(self.0.as_secs(), self.0.subsec_millis() * 1_000_000);
        // A time below a millisecond would show as zero.
        let shown = if millis.is_zero() { self.0 } else { millis };
        write!(formatter, "{shown:?}")
    }
}

impl fmt::Debug for LockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        formatter
            .debug_struct("LockError")
            .field("kind", &inner.kind)
            .field("key", &inner.key)
            .field("context", &inner.context)
            .field("limit", &inner.limit)
            .field("waited", &inner.waited)
            .field("holders", &inner.holders)
            .field("source", &inner.source)
            .finish()
    }
}

impl StdError for LockError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Converts contention and a passed limit to `None`, for the `try_` methods.
pub(crate) fn contended_to_none<T>(result: Result<T, LockError>) -> Result<Option<T>, LockError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_contended() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the error as an `E`. Looks into a box and an [`Arc`], whose `source` is that of the
/// error in them.
pub(crate) fn downcast<'e, E: StdError + 'static>(
    error: &'e (dyn StdError + 'static),
) -> Option<&'e E> {
    let boxed = || error.downcast_ref::<Box<E>>().map(AsRef::as_ref);
    let shared = || error.downcast_ref::<Arc<E>>().map(AsRef::as_ref);
    error.downcast_ref().or_else(boxed).or_else(shared)
}
