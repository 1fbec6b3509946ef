//! Connections of the tests.

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
