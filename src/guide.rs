//! How to use locks well: recipes, choices, and what a lock does not protect.
//!
//! | you want | recipe |
//! |---|---|
//! | to create a row once, though two ask at the same moment | [`create_once`] |
//! | to leave the work to whoever is at it already | [`skip_if_busy`] |
//! | to refuse the second of two, inside its transaction | [`fail_fast`] |
//! | everybody to have a turn, one at a time | [`wait_for_a_turn`] |
//! | a lock that lives as long as an object | [`own_connection`] |
//! | replicas that migrate when they start | [`migrations`] |
//!
//! Each recipe is a program in `examples/` too, which runs on both databases.
//!
//! | you wonder | page |
//! |---|---|
//! | which scope, which way to wait, how long | [`choosing`] |
//! | how many connections; pools; PgBouncer | [`connections`] |
//! | how a whole process shares a few connections: the locker | [`locker`] |
//! | what a transaction sees after its wait | [`snapshots`] |
//! | what happens when something dies; keep-alive settings; failover | [`outages`] |
//! | what a lock does not protect; fencing tokens | [`fencing`] |
//! | how to test the branch "somebody else has it" | [`testing`](crate::testing) |
//!
//! Clients: [`diesel`], [`diesel_async`], [`sea_orm`], [`rusqlite`]. Coming from PormG, with_advisory_lock, django-pglock or sqlx: [`coming_from`].

macro_rules! pages {
    ($($(#[$summary:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$summary])*
        #[allow(
            clippy::test_attr_in_doctest,
            reason = "a test that a reader would copy; scripts/blocks runs it"
        )]
        #[doc = ""]
        #[doc = include_str!(concat!("../docs/", $file, ".md"))]
        pub mod $name {}
    )*};
}
pages! {
    /// Create once: two deliveries of one event, and no row to lock yet.
    create_once = "create-once";
    /// Skip if busy: somebody else doing it is good enough.
    skip_if_busy = "skip-if-busy";
    /// Fail fast: a lock on a tuple, refused inside the transaction.
    fail_fast = "fail-fast";
    /// Wait for a turn: one worker of a fleet at a time.
    wait_for_a_turn = "wait-for-a-turn";
    /// The lock's own connection: a guard that is kept.
    own_connection = "own-connection";
    /// Migrations when several replicas start.
    migrations = "migrations";
    /// Scope, strategy and time-outs.
    choosing = "choosing";
    /// Connections, pools and poolers.
    connections = "connections";
    /// The locker: many tasks, few connections.
    locker = "lock-manager";
    /// Snapshots: what a transaction sees after its wait.
    snapshots = "snapshots";
    /// Outages: what becomes of a lock when something dies.
    outages = "outages";
    /// Fencing, and what a lock does not protect.
    fencing = "fencing";
    /// Coming from another library.
    coming_from = "coming-from";
    /// Diesel.
    diesel = "diesel";
    /// diesel-async.
    diesel_async = "diesel-async";
    /// SeaORM.
    sea_orm = "sea-orm";
    /// rusqlite.
    rusqlite = "rusqlite";
}
