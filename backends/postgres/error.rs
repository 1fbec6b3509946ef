//! SQLSTATE codes, their meaning for a lock statement, and the error of a client library.

use std::error::Error as StdError;
use std::fmt;

use crate::error::LockErrorKind;

/// A five-character code of the SQL standard, which PostgreSQL sends with every [error].
///
/// The crate distinguishes errors by this code only: servers translate the text of a message.
///
/// [error]: https://www.postgresql.org/docs/current/errcodes-appendix.html
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// Prefix of the constraint name in which the crate's scripts report a code.
    pub(crate) const CONSTRAINT_PREFIX: &str = "advisory-locking ";

    /// The code of a [`CheckTransaction`](super::Script::CheckTransaction) that finds another
    /// transaction than that of the grant. An adapter derives it from the
    /// [error](Self::from_script).
    ///
    /// The SQL standard leaves classes from `I` to `Z` to implementations. PostgreSQL uses [none]
    /// that begins with `Z`.
    ///
    /// [none]: https://www.postgresql.org/docs/current/errcodes-appendix.html
    pub const OTHER_TRANSACTION: Self = Self(*b"ZAL02");

    /// Name of the setting that [`CheckTransaction`](super::Script::CheckTransaction) reads to
    /// fail. No server has it, because a [custom setting] has a dot in its name.
    ///
    /// [custom setting]: https://www.postgresql.org/docs/current/runtime-config-custom.html
    pub(crate) const MISSING_SETTING: &str = "advisory-locking: other transaction";

    /// Parses a code such as `"55P03"`. Returns `None` unless it is five ASCII letters or digits.
    #[must_use]
    pub fn new(code: &str) -> Option<Self> {
        let bytes: [u8; 5] = code.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(u8::is_ascii_alphanumeric)
            .then_some(Self(bytes))
    }

    /// Reads the code of a script of this crate from the constraint name and the message of its
    /// error.
    ///
    /// Diesel shows these two and hides the code. The crate's scripts catch an error on the server
    /// and raise it again with the code in the constraint name. Only
    /// [`OTHER_TRANSACTION`](Self::OTHER_TRANSACTION) is in the message, as the name of a setting,
    /// which no server translates.
    #[must_use]
    pub fn from_script(constraint: Option<&str>, message: &str) -> Option<Self> {
        if message.contains(Self::MISSING_SETTING) {
            return Some(Self::OTHER_TRANSACTION);
        }
        Self::new(constraint?.strip_prefix(Self::CONSTRAINT_PREFIX)?)
    }

    /// Returns the code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // `new` accepts ASCII only, so the fallback is never used.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns whether the server ends the session with this error.
    pub(crate) fn ends_session(self) -> bool {
        matches!(
            &self.0,
            // Connection exceptions.
            [b'0', b'8', ..]
            // The server terminates the session, has crashed, or does not accept sessions yet; the
            // database was dropped.
            | b"57P01" | b"57P02" | b"57P03" | b"57P04"
            // `idle_session_timeout`, `idle_in_transaction_session_timeout` and, since 17,
            // `transaction_timeout`.
            | b"57P05" | b"25P03" | b"25P04"
        )
    }

    /// Returns whether the server ends an open transaction with this error, and never a transaction
    /// whose commit has begun: an administrator's command, and the timeouts of a transaction.
    fn precedes_commit(self) -> bool {
        matches!(&self.0, b"57P01" | b"25P03" | b"25P04")
    }
}

/// Returns the meaning of a code for a lock statement. A code that says nothing about locks is
/// [`LockErrorKind::Database`].
///
/// See the manual's list of
/// [codes](https://www.postgresql.org/docs/current/errcodes-appendix.html).
pub(crate) fn classify(code: Option<SqlState>) -> LockErrorKind {
    match code.as_ref().map(SqlState::as_str) {
        Some("25P02") => LockErrorKind::TransactionAborted,
        Some("40P01") => LockErrorKind::Deadlock,
        // "Out of memory", which for a lock function usually means a full lock table.
        Some("53200") => LockErrorKind::TooManyLocks,
        // A `lock_timeout` ended the wait.
        Some("55P03") => LockErrorKind::TimedOut,
        // A cancel request or a `statement_timeout` ended the statement.
        Some("57014") => LockErrorKind::Canceled,
        // Undefined function, feature not supported: a server that speaks PostgreSQL's protocol
        // and has no advisory locks.
        Some("42883" | "0A000") => LockErrorKind::Unsupported,
        _ => LockErrorKind::Database,
    }
}

/// Returns the meaning of a code for a statement that does not wait for the lock.
///
/// A timeout or deadlock of such a statement concerns another object, such as a catalog table.
pub(crate) fn classify_attempt(code: Option<SqlState>) -> LockErrorKind {
    match classify(code) {
        LockErrorKind::TimedOut | LockErrorKind::Deadlock => LockErrorKind::Database,
        kind => kind,
    }
}

/// Returns the likely cause of a code that says nothing about locks.
pub(crate) fn hint(code: Option<SqlState>) -> Option<&'static str> {
    match code.as_ref().map(SqlState::as_str)? {
        // The statement does not exist, or exists already.
        "26000" | "42P05" => Some(
            "the session lost or duplicated a prepared statement: is there a transaction pooler, \
             or did the application deallocate it?",
        ),
        "42883" | "0A000" => Some("the server rejects the lock function: is it PostgreSQL?"),
        _ => None,
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SqlState({})", self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An error of a client library, with its code and the state of the connection.
#[derive(Debug)]
pub struct SessionError {
    code: Option<SqlState>,
    disconnected: bool,
    before_commit: bool,
    unsupported_backend: bool,
    source: Box<dyn StdError + Send + Sync>,
}

impl SessionError {
    /// Wraps a client's error, without a code, on a connection that is still open.
    #[must_use]
    pub fn new(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            code: None,
            disconnected: false,
            before_commit: false,
            unsupported_backend: false,
            source: source.into(),
        }
    }

    /// Wraps the error of a pool of a backend that this crate does not support. The caller gets
    /// [`Unsupported`](LockErrorKind::Unsupported).
    #[must_use]
    pub fn unsupported_backend(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            unsupported_backend: true,
            ..Self::new(source)
        }
    }

    /// Adds the server's code. Some codes imply that the session has ended.
    #[must_use]
    pub fn with_code(mut self, code: Option<SqlState>) -> Self {
        self.code = code;
        // Added, not replaced: the client may have found the end of the session by itself.
        self.disconnected |= code.is_some_and(SqlState::ends_session);
        self
    }

    /// Adds that the connection, and so the session, has ended.
    #[must_use]
    pub fn with_disconnected(mut self, disconnected: bool) -> Self {
        self.disconnected |= disconnected;
        self
    }

    /// Adds that the commit was not sent.
    #[cfg(any(test, feature = "sqlx-postgres"))]
    #[must_use]
    pub(crate) fn before_commit(mut self) -> Self {
        self.before_commit = true;
        self
    }

    /// Returns whether the server may have committed: the session was lost, the commit was sent,
    /// and the server did not report that the loss was before it.
    pub(crate) fn may_be_committed(&self) -> bool {
        self.disconnected
            && !self.before_commit
            && !self.code.is_some_and(SqlState::precedes_commit)
    }

    /// Returns whether the client lost the session before it sent the commit. The server may still
    /// have the transaction open.
    pub(crate) const fn is_lost_before_commit(&self) -> bool {
        self.disconnected && self.before_commit
    }

    /// Returns whether the check before a commit found another transaction than that of the grant.
    pub(crate) fn is_other_transaction(&self) -> bool {
        self.code == Some(SqlState::OTHER_TRANSACTION)
    }

    /// Returns the error of an adapter that has no implementation for this statement or script.
    pub(crate) fn unsupported(request: &impl fmt::Debug) -> Self {
        Self::new(format!("this session cannot run {request:?}"))
    }

    /// Returns the server's code. `None` if the client hides it.
    #[must_use]
    pub const fn code(&self) -> Option<SqlState> {
        self.code
    }

    /// Returns whether the session is known to have ended.
    #[must_use]
    pub const fn is_disconnected(&self) -> bool {
        self.disconnected
    }

    pub(crate) const fn is_unsupported_backend(&self) -> bool {
        self.unsupported_backend
    }

    pub(crate) fn into_source(self) -> Box<dyn StdError + Send + Sync> {
        self.source
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(formatter, "the client failed with SQLSTATE {code}"),
            None => formatter.write_str("the client failed"),
        }
    }
}

impl StdError for SessionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstate_is_five_letters_or_digits() {
        assert_eq!(
            SqlState::new("55P03")
                .map(|code| code.to_string())
                .as_deref(),
            Some("55P03")
        );
        for text in ["", "55P0", "55P033", "55P0é", "55P0 "] {
            assert_eq!(SqlState::new(text), None, "{text:?}");
        }
    }

    #[test]
    fn code_is_read_from_our_scripts_only() {
        let of_constraint = |name| SqlState::from_script(Some(name), "deadlock detected");
        assert_eq!(
            of_constraint("advisory-locking 40P01"),
            SqlState::new("40P01")
        );
        for name in ["users_email_key", "40P01", "advisory-locking "] {
            assert_eq!(of_constraint(name), None, "{name}");
        }
        let of_message = |setting| {
            let message = format!("nicht erkannter Konfigurationsparameter »{setting}«");
            SqlState::from_script(None, &message)
        };
        assert_eq!(
            of_message(SqlState::MISSING_SETTING),
            Some(SqlState::OTHER_TRANSACTION)
        );
        assert_eq!(of_message("advisory_locking.released"), None);
    }

    #[test]
    fn session_ending_codes_are_disconnects() {
        let ended = |code| {
            SessionError::new("x")
                .with_code(SqlState::new(code))
                .is_disconnected()
        };
        for code in [
            "08006", "08P01", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04",
        ] {
            assert!(ended(code), "{code}");
        }
        for code in ["57014", "55P03", "40P01", "25P02", "53200", "42883"] {
            assert!(!ended(code), "{code}");
        }
    }

    /// The server reports the end of a transaction only if its commit has not begun.
    #[test]
    fn commit_is_unknown_unless_the_server_ended_its_transaction() {
        let may_be_committed = |code| {
            let error = SessionError::new("x").with_code(SqlState::new(code));
            error.may_be_committed()
        };
        for code in ["57P01", "25P03", "25P04", "40001"] {
            assert!(!may_be_committed(code), "{code}");
        }
        for code in ["57P02", "57P03", "57P04", "08006"] {
            assert!(may_be_committed(code), "{code}");
        }
        let without_code = || SessionError::new("x").with_disconnected(true);
        assert!(without_code().may_be_committed());
        assert!(!without_code().before_commit().may_be_committed());
    }

    #[test]
    fn classify_maps_codes_to_kinds() {
        for (code, kind) in [
            ("25P02", LockErrorKind::TransactionAborted),
            ("40P01", LockErrorKind::Deadlock),
            ("42883", LockErrorKind::Unsupported),
            ("0A000", LockErrorKind::Unsupported),
            ("53200", LockErrorKind::TooManyLocks),
            ("55P03", LockErrorKind::TimedOut),
            ("57014", LockErrorKind::Canceled),
            ("42501", LockErrorKind::Database),
            ("57P01", LockErrorKind::Database),
        ] {
            assert_eq!(classify(SqlState::new(code)), kind, "{code}");
        }
        assert_eq!(classify(None), LockErrorKind::Database);
    }

    #[test]
    fn attempt_neither_times_out_nor_deadlocks() {
        for (code, kind) in [
            ("55P03", LockErrorKind::Database),
            ("40P01", LockErrorKind::Database),
            ("53200", LockErrorKind::TooManyLocks),
            ("57014", LockErrorKind::Canceled),
        ] {
            assert_eq!(classify_attempt(SqlState::new(code)), kind, "{code}");
        }
    }

    #[test]
    fn hints_name_the_pooler_and_the_server() {
        let hint_of = |code| hint(SqlState::new(code)).unwrap_or_default();
        for code in ["26000", "42P05"] {
            assert!(hint_of(code).contains("transaction pooler"), "{code}");
        }
        for code in ["42883", "0A000"] {
            assert!(hint_of(code).contains("is it PostgreSQL?"), "{code}");
        }
        assert_eq!((hint_of("22012"), hint(None)), ("", None));
    }
}
