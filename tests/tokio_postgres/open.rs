//! Connections of the tests.

use std::time::Duration;

use testkit::server::url;
use tokio_postgres::{Client, NoTls};

/// Errors of a body.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

pub(crate) async fn connect() -> Client {
    connect_to(&url()).await
}

pub(crate) async fn connect_to(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn deadpool() -> deadpool_postgres::Pool {
    let manager = deadpool_postgres::Manager::new(url().parse().unwrap(), NoTls);
    let pool = deadpool_postgres::Pool::builder(manager)
        .max_size(1)
        .build();
    pool.unwrap()
}

/// Waits until a condition is true.
pub(crate) async fn eventually(event: &str, condition: impl Fn() -> bool + Send + Sync) {
    let ended = tokio::time::timeout(testkit::server::TIMEOUT, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    ended
        .await
        .unwrap_or_else(|_| panic!("never occurred: {event}"));
}
