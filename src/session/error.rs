//! How a client library fails.

use std::error::Error as StdError;
use std::fmt;

/// A five-character code of the SQL standard, as PostgreSQL sends it with every error.
///
/// Kinds of errors are told apart by it and never by the text of a message, which servers translate.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// Prefix of the constraint name under which our statements report a code to clients that hide it.
    pub(crate) const CONSTRAINT_PREFIX: &str = "advisory-locking ";

    /// A code from its text, such as `"55P03"`. `None` if it is not five ASCII letters or digits.
    #[must_use]
    pub fn new(code: &str) -> Option<Self> {
        let bytes: [u8; 5] = code.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(u8::is_ascii_alphanumeric)
            .then_some(Self(bytes))
    }

    /// The code that a statement of this crate put in the constraint name of its error.
    ///
    /// Some clients (Diesel) show a constraint name but no code. The statements that wait catch the error on the server
    /// and raise it again with the code there.
    #[must_use]
    pub fn from_constraint(name: &str) -> Option<Self> {
        Self::new(name.strip_prefix(Self::CONSTRAINT_PREFIX)?)
    }

    /// The code's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in, so the fallback is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether the server ends the session with this error: classes 08 and 57P, and the two idle timeouts.
    pub(crate) fn ends_session(self) -> bool {
        matches!(
            &self.0,
            [b'0', b'8', ..] | b"57P01" | b"57P02" | b"57P03" | b"57P05" | b"25P03"
        )
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

/// An error of a client library, with what the protocol needs to know of it.
#[derive(Debug)]
pub struct SessionError {
    code: Option<SqlState>,
    disconnected: bool,
    unsupported_backend: bool,
    source: Box<dyn StdError + Send + Sync>,
}

impl SessionError {
    /// An error of which nothing is known but that it happened.
    #[must_use]
    pub fn new(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            code: None,
            disconnected: false,
            unsupported_backend: false,
            source: source.into(),
        }
    }

    /// A pool whose connections can have neither locks nor the no-op. It is reported as
    /// [`Unsupported`](crate::LockErrorKind::Unsupported).
    #[must_use]
    pub fn unsupported_backend(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            unsupported_backend: true,
            ..Self::new(source)
        }
    }

    /// Adds the server's code. Some codes say that the session has ended.
    #[must_use]
    pub fn with_code(mut self, code: Option<SqlState>) -> Self {
        self.code = code;
        self.disconnected |= code.is_some_and(SqlState::ends_session);
        self
    }

    /// Says that the connection is gone, and so the session.
    #[must_use]
    pub fn with_disconnected(mut self, disconnected: bool) -> Self {
        self.disconnected |= disconnected;
        self
    }

    pub(crate) fn unsupported(request: &impl fmt::Debug) -> Self {
        Self::new(format!("a backend without locks was asked for {request:?}"))
    }

    /// The server's code, where the client shows it.
    #[must_use]
    pub const fn code(&self) -> Option<SqlState> {
        self.code
    }

    /// Whether the session is known to have ended.
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
    fn a_code_is_five_letters_or_digits() {
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
    fn only_our_constraint_carries_a_code() {
        assert_eq!(
            SqlState::from_constraint("advisory-locking 40P01"),
            SqlState::new("40P01")
        );
        assert_eq!(SqlState::from_constraint("users_email_key"), None);
        assert_eq!(SqlState::from_constraint("40P01"), None);
        assert_eq!(SqlState::from_constraint("advisory-locking "), None);
    }

    #[test]
    fn codes_that_end_the_session_say_so() {
        let ended = |code| {
            SessionError::new("x")
                .with_code(SqlState::new(code))
                .is_disconnected()
        };
        for code in ["08006", "08P01", "57P01", "57P02", "57P05", "25P03"] {
            assert!(ended(code), "{code}");
        }
        for code in ["57014", "55P03", "40P01", "25P02", "53200", "42883"] {
            assert!(!ended(code), "{code}");
        }
    }
}
