//! The client's view of its transaction.

/// The client library's view of the transaction of its session.
///
/// A `BEGIN` sent as plain text is invisible to Diesel. The release of a lock detects it in two
/// cases: the lock was acquired in that transaction, or that transaction has written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TransactionState {
    depth: u32,
    test: bool,
    broken: bool,
}

impl TransactionState {
    /// Returns the state without an open transaction.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            depth: 0,
            test: false,
            broken: false,
        }
    }

    /// Returns the state in a transaction of the application.
    ///
    /// `depth` counts the transaction and its savepoints: 1 without a savepoint, 2 with one. 0 is
    /// no transaction.
    #[must_use]
    pub const fn open(depth: u32) -> Self {
        Self {
            depth,
            test: false,
            broken: false,
        }
    }

    /// Returns the state in a transaction of a test framework, such as Diesel's
    /// `begin_test_transaction`. `depth` counts the application's transactions inside it.
    #[must_use]
    pub const fn in_test(depth: u32) -> Self {
        Self {
            depth,
            test: true,
            broken: false,
        }
    }

    /// Returns the state of a connection that the client has closed or marked as broken.
    #[must_use]
    pub const fn broken() -> Self {
        Self {
            depth: 0,
            test: false,
            broken: true,
        }
    }

    /// Returns the state of a connection on which a `BEGIN` was dropped in flight. The client does
    /// not know whether its transaction is open, and marks the connection as broken.
    #[must_use]
    pub const fn unknown() -> Self {
        Self {
            depth: 1,
            test: false,
            broken: true,
        }
    }

    /// Returns the state inside one more transaction or savepoint of the application.
    #[must_use]
    pub const fn nested(self) -> Self {
        Self {
            depth: self.depth.saturating_add(1),
            ..self
        }
    }

    /// Returns the number of open transactions and savepoints of the application. A test's
    /// transaction does not count.
    #[must_use]
    pub const fn depth(self) -> u32 {
        self.depth
    }

    /// Returns whether the application's own transaction is open.
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.depth > 0
    }

    /// Returns whether the server sees a transaction: the application's or a test's.
    #[must_use]
    pub const fn is_open_on_server(self) -> bool {
        self.depth > 0 || self.test
    }

    /// Returns whether the innermost transaction of the application is a savepoint on the server.
    pub(crate) const fn is_savepoint(self) -> bool {
        self.depth > 1 || (self.depth > 0 && self.test)
    }

    /// Returns whether a pool must close the connection: it is broken, or in a transaction of the
    /// application.
    #[cfg(any(feature = "deadpool", feature = "mobc"))]
    pub(crate) const fn must_be_discarded(self) -> bool {
        self.broken || self.is_open()
    }

    /// Returns whether the client has closed the connection or marked it as broken.
    #[must_use]
    pub const fn is_broken(self) -> bool {
        self.broken
    }
}
