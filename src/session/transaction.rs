//! What a client knows of its transaction.

/// What the client library knows of the transaction its session is in.
///
/// Only what the client knows: a `BEGIN` sent as plain text is invisible to Diesel. It is noticed when a lock taken in it is
/// released.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TransactionState {
    depth: u32,
    test: bool,
    broken: bool,
}

impl TransactionState {
    /// No transaction is open.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            depth: 0,
            test: false,
            broken: false,
        }
    }

    /// The application's transaction is open: `depth` is 1 for a plain one, 2 with one savepoint in it, and so on. Depth 0
    /// is none.
    #[must_use]
    pub const fn open(depth: u32) -> Self {
        Self {
            depth,
            test: false,
            broken: false,
        }
    }

    /// A test framework's transaction is open around everything, and the application's own transactions to `depth` inside
    /// it.
    #[must_use]
    pub const fn in_test(depth: u32) -> Self {
        Self {
            depth,
            test: true,
            broken: false,
        }
    }

    /// The client has given the connection up.
    #[must_use]
    pub const fn broken() -> Self {
        Self {
            depth: 0,
            test: false,
            broken: true,
        }
    }

    /// The same with one more transaction or savepoint of the application's.
    #[must_use]
    pub const fn nested(self) -> Self {
        Self {
            depth: self.depth.saturating_add(1),
            ..self
        }
    }

    /// How many of the application's own transactions and savepoints are open; a test's transaction does not count.
    #[must_use]
    pub const fn depth(self) -> u32 {
        self.depth
    }

    /// Whether the application's own transaction is open.
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.depth > 0
    }

    /// Whether the server sees a transaction: the application's or a test's.
    #[must_use]
    pub const fn is_open_on_server(self) -> bool {
        self.depth > 0 || self.test
    }

    /// Whether the client has given the connection up.
    #[must_use]
    pub const fn is_broken(self) -> bool {
        self.broken
    }
}
