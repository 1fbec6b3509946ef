//! Recipes, background and a page per client.
//!
//! | task | recipe |
//! |---|---|
//! | create a row once, though two requests arrive at the same moment | [`create_once`] |
//! | skip work that another session is doing | [`skip_if_busy`] |
//! | refuse the second of two requests, inside its transaction | [`fail_fast`] |
//! | let several workers work one at a time | [`wait_for_a_turn`] |
//! | hold a lock for the life of an object; elect a leader | [`own_connection`] |
//! | run migrations from several replicas | [`migrations`] |
//!
//! Each recipe is also a program in `examples/`, which runs on both databases.
//!
//! | topic | page |
//! |---|---|
//! | lock scope, wait strategy, limit | [`choosing`] |
//! | number of connections; pools; PgBouncer | [`connections`] |
//! | one process with many locks on few connections | [`lock_manager`] |
//! | data that a transaction sees after its wait | [`snapshots`] |
//! | failures of processes, networks and servers; keep-alive settings; failover | [`outages`] |
//! | limits of a lock; fencing tokens | [`fencing`] |
//! | questions before production; holders and waiters of a lock; permissions; shutdown | [`operating`] |
//! | log events and their fields | [`events`] |
//! | metrics, dashboard queries and alert rules | [`metrics`] |
//! | one source for PostgreSQL and for SQLite in unit tests | [`two_databases`] |
//! | unit tests of the branches "held elsewhere", "timed out" and "lost" | module `testing` |
//!
//! Clients: [`diesel`], [`diesel_async`], [`sea_orm`], [`sqlx`], [`tokio_postgres`],
//! [`rusqlite`]. From another library: [`coming_from`].

// A page defines its links at its end, for readers of the repository. In CommonMark the first
// definition of a label wins, so the files included before the page turn them into links within
// the documentation. Links to items need the features of those items.
macro_rules! pages {
    ($($(#[$summary:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$summary])*
        #[allow(
            clippy::test_attr_in_doctest,
            reason = "a test that a reader would copy; scripts/blocks runs it"
        )]
        #[doc = ""]
        #[doc = include_str!("guide/pages.md")]
        #[cfg_attr(feature = "_all", doc = include_str!("guide/items.md"))]
        #[doc = include_str!(concat!("../docs/", $file, ".md"))]
        pub mod $name {}
    )*};
}
pages! {
    /// Create once: two deliveries of one event, and no row to lock yet.
    create_once = "create-once";
    /// Skip if held elsewhere: another session is doing the work.
    skip_if_busy = "skip-if-busy";
    /// Fail fast: a lock on a tuple, refused inside the transaction.
    fail_fast = "fail-fast";
    /// Wait for a turn: several workers, one at a time.
    wait_for_a_turn = "wait-for-a-turn";
    /// A guard in a struct: a lock with a connection of its own.
    own_connection = "own-connection";
    /// Migrations of several replicas.
    migrations = "migrations";
    /// Scope, strategy and limit.
    choosing = "choosing";
    /// Connections, pools and poolers.
    connections = "connections";
    /// The lock manager: many tasks, few connections.
    lock_manager = "lock-manager";
    /// One source for two databases, with diesel-async.
    two_databases = "two-databases";
    /// Snapshots: data that a transaction sees after its wait.
    snapshots = "snapshots";
    /// Outages: the state of a lock after a failure.
    outages = "outages";
    /// Operating: holders and waiters of a lock, shutdown.
    operating = "operating";
    /// Log events and their fields.
    events = "events";
    /// Metrics: instruments, queries, alert rules.
    metrics = "metrics";
    /// Fencing, and the limits of a lock.
    fencing = "fencing";
    /// Coming from another library.
    coming_from = "coming-from";
    /// Diesel.
    diesel = "diesel";
    /// diesel-async.
    diesel_async = "diesel-async";
    /// SeaORM.
    sea_orm = "sea-orm";
    /// sqlx.
    sqlx = "sqlx";
    /// tokio-postgres.
    tokio_postgres = "tokio-postgres";
    /// rusqlite.
    rusqlite = "rusqlite";
}
