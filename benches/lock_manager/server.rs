//! The server, and what it shows of its clients.

use std::process::Command;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

/// Room for the locks that the bench holds at once, beside those of the server itself.
const LOCKS: i64 = 20_000;

pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").expect("no DATABASE_URL: run it in scripts/postgres")
}

/// The URL for connections that the server knows by a name.
pub(crate) fn url_as(name: &str) -> String {
    let url = url();
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}application_name={name}")
}

/// A connection of the bench's own, served by the runtime.
pub(crate) async fn connect(name: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&url_as(name), NoTls).await.unwrap();
    // It ends with its client.
    tokio::spawn(connection);
    client
}

/// Makes the lock table of a private server large enough, which takes a restart; another's must be so.
pub(crate) fn make_room() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let is_private = std::env::var_os("ADVISORY_LOCKING_PGDATA").is_some();
    let has_room = runtime.block_on(async {
        let client = connect("make_room").await;
        let room = "SELECT current_setting('max_locks_per_transaction')::int8 * current_setting('max_connections')::int8";
        let room: i64 = client.query_one(room, &[]).await.unwrap().get(0);
        if room < LOCKS && is_private {
            let more = "ALTER SYSTEM SET max_locks_per_transaction = 256";
            client.batch_execute(more).await.unwrap();
        }
        room >= LOCKS
    });
    assert!(
        has_room || is_private,
        "the server's lock table is too small: max_locks_per_transaction × max_connections must be {LOCKS} or more"
    );
    if !has_room {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
        let restart = ["ctl", "-m", "fast", "-w", "restart"];
        let output = Command::new(script).args(restart).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// Asks the server, on a connection of its own.
pub(crate) struct Control(Client);

impl Control {
    pub(crate) async fn new() -> Self {
        Self(connect("control").await)
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.0
    }

    async fn count(&self, sql: &str, name: &str) -> i64 {
        self.0.query_one(sql, &[&name]).await.unwrap().get(0)
    }

    /// How many sessions there are of this name.
    pub(crate) async fn sessions(&self, name: &str) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        self.count(sql, name).await
    }

    /// How many advisory locks the sessions of this name hold.
    pub(crate) async fn locks(&self, name: &str) -> i64 {
        let sql = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND granted AND application_name = $1";
        self.count(sql, name).await
    }

    /// How many transactions this database has seen, which is how many statements where nobody begins one. A session tells when it ends.
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

/// A runtime as applications have it.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let builder = &mut tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().unwrap()
}
