//! Connections and queries for the tests.

use advisory_locking::LockOptions;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, Statement};
pub(crate) use testkit::pending::drop_at as poll_times;
use testkit::server::url;

pub(crate) const NO_WAIT: LockOptions = LockOptions::no_wait();

/// Opens a pool of `size` connections to the test server.
pub(crate) async fn postgres(size: u32) -> DatabaseConnection {
    connect(url(), size).await
}

pub(crate) async fn sqlite() -> DatabaseConnection {
    connect("sqlite::memory:".to_owned(), 1).await
}

/// Opens a pool of `size` connections to a database.
pub(crate) async fn connect(url: String, size: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(size).sqlx_logging(false);
    Database::connect(options).await.unwrap()
}

/// Returns the number that a query selects.
pub(crate) async fn number(db: &impl ConnectionTrait, sql: &str) -> i64 {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let row = db.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

pub(crate) async fn pid(db: &impl ConnectionTrait) -> i64 {
    number(db, "SELECT pg_backend_pid()::int8").await
}
