//! The server, and its statistics about the clients.

use std::process::Command;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

/// The capacity of the lock table that the bench needs.
const LOCKS: i64 = 20_000;

pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").expect("no DATABASE_URL: run it in scripts/postgres")
}

/// Returns the URL with an application name.
pub(crate) fn url_as(name: &str) -> String {
    let url = url();
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}application_name={name}")
}

/// Opens a tokio-postgres connection.
pub(crate) async fn connect(name: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&url_as(name), NoTls).await.unwrap();
    // It ends with its client.
    tokio::spawn(connection);
    client
}

/// Enlarges the lock table of a private server, with a restart. Panics if that of another server is
/// too small.
pub(crate) fn ensure_lock_table_size() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let is_private = std::env::var_os("ADVISORY_LOCKING_PGDATA").is_some();
    let is_large_enough = runtime.block_on(async {
        let client = connect("ensure_lock_table_size").await;
        let capacity = "SELECT current_setting('max_locks_per_transaction')::int8 * current_setting('max_connections')::int8";
        let capacity: i64 = client.query_one(capacity, &[]).await.unwrap().get(0);
        if capacity < LOCKS && is_private {
            let more = "ALTER SYSTEM SET max_locks_per_transaction = 256";
            client.batch_execute(more).await.unwrap();
        }
        capacity >= LOCKS
    });
    assert!(
        is_large_enough || is_private,
        "the server's lock table is too small: max_locks_per_transaction × max_connections must be {LOCKS} or more"
    );
    if !is_large_enough {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
        let restart = ["ctl", "-m", "fast", "-w", "restart"];
        let output = Command::new(script).args(restart).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// A connection for the statistics of the server.
pub(crate) struct ServerStats(Client);

impl ServerStats {
    pub(crate) async fn new() -> Self {
        Self(connect("control").await)
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.0
    }

    async fn count(&self, sql: &str, name: &str) -> i64 {
        self.0.query_one(sql, &[&name]).await.unwrap().get(0)
    }

    /// Returns the number of sessions with this application name.
    pub(crate) async fn sessions(&self, name: &str) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        self.count(sql, name).await
    }

    /// Returns the number of advisory locks that the sessions with this name hold.
    pub(crate) async fn locks(&self, name: &str) -> i64 {
        let sql = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND granted AND application_name = $1";
        self.count(sql, name).await
    }

    /// Returns the number of transactions of this database.
    ///
    /// Without explicit transactions that is the number of statements. A session reports its
    /// statistics when it ends.
    pub(crate) async fn transactions(&self) -> i64 {
        let flush = "SELECT pg_stat_force_next_flush()";
        self.0.batch_execute(flush).await.unwrap();
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        self.0.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Waits until the last session of this name has ended.
    pub(crate) async fn until_gone(&self, name: &str) {
        while self.sessions(name).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns a multi-threaded runtime, as applications use it.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let builder = &mut tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().unwrap()
}
