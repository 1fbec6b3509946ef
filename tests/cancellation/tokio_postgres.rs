//! tokio-postgres's `Client`, alone and in the pools of bb8 and deadpool-postgres.

use std::ops::Deref;
use std::sync::OnceLock;

use ::tokio_postgres::config::SslMode;
use ::tokio_postgres::{Client, Config, Error};
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockKey,
    LockOptions,
};
use bb8_postgres::PostgresConnectionManager;
use deadpool_postgres::{ClientWrapper, Manager, ManagerConfig, RecyclingMethod};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;

use crate::adapters::{Adapter, Call, calls};
use crate::timeouts::LIMIT;

fn failed(error: Error) -> LockError {
    LockError::new(LockErrorKind::Database).with_source(error)
}

async fn sleep(client: &Client) -> Result<(), LockError> {
    let slept = client.batch_execute("SELECT pg_sleep(0.005)").await;
    slept.map_err(failed)
}

async fn body(client: &mut Client) -> Result<(), LockError> {
    sleep(client).await
}

/// Makes a call inside the caller's transaction.
async fn in_transaction(
    client: &mut Client,
    call: Call,
    key: &LockKey,
    options: LockOptions,
) -> Result<(), LockError> {
    let mut tx = client.transaction().await.map_err(failed)?;
    if matches!(call, Call::TryInTransaction) {
        tx.try_acquire_advisory_xact_lock(key, options).await?;
    } else {
        tx.acquire_advisory_xact_lock(key, options).await?;
    }
    tx.commit().await.map_err(failed)
}

/// Returns whether connections to an address use TLS. All of them are made by this rule, also those
/// of diesel-async.
pub(crate) fn requires_tls(url: &str) -> bool {
    url.contains("sslmode=require")
}

/// Returns the parameters of an address, and a connector, which does not check certificates.
pub(crate) fn config(url: &str) -> (Config, MakeTlsConnector) {
    static CONNECTOR: OnceLock<MakeTlsConnector> = OnceLock::new();
    let connector = CONNECTOR.get_or_init(|| {
        let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        let mut connector = MakeTlsConnector::new(connector.build());
        connector.set_callback(|connection, _| {
            connection.set_verify_hostname(false);
            Ok(())
        });
        connector
    });
    let mut config: Config = url.parse().unwrap();
    if !requires_tls(url) {
        config.ssl_mode(SslMode::Disable);
    }
    (config, connector.clone())
}

pub(crate) async fn connect(url: &str) -> Client {
    let (config, connector) = config(url);
    let (client, connection) = config.connect(connector).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) struct Borrowed {
    client: Client,
    url: String,
}

impl Adapter for Borrowed {
    const NAME: &str = "&mut Client";
    const SHORT_LIMIT: std::time::Duration = LIMIT;

    async fn open(url: &str) -> Self {
        Self {
            client: connect(url).await,
            url: url.to_owned(),
        }
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        calls!(self.client, call, key, options, {
            in_transaction(&mut self.client, call, key, options).await
        })
    }

    async fn check(&mut self) {
        if self.client.batch_execute("SELECT 1").await.is_err() {
            self.client = connect(&self.url).await;
        }
    }
}

/// A pool of one connection.
pub(crate) struct Bb8(bb8::Pool<PostgresConnectionManager<MakeTlsConnector>>);

impl Adapter for Bb8 {
    const NAME: &str = "bb8-postgres";

    async fn open(url: &str) -> Self {
        let (config, connector) = config(url);
        let manager = PostgresConnectionManager::new(config, connector);
        let pool = bb8::Pool::builder().max_size(1).build(manager).await;
        Self(pool.unwrap())
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        calls!(self.0, call, key, options, {
            let mut client = self.0.get().await.unwrap();
            in_transaction(&mut client, call, key, options).await
        })
    }

    async fn check(&mut self) {
        let client = self.0.get().await.unwrap();
        client.batch_execute("SELECT 1").await.unwrap();
    }
}

/// A pool of one connection. Its default does not check a connection whose session is ending, and
/// the client of a `Transaction` cannot be closed.
pub(crate) struct Deadpool(deadpool_postgres::Pool);

impl Adapter for Deadpool {
    const NAME: &str = "deadpool-postgres";

    async fn open(url: &str) -> Self {
        let (config, connector) = config(url);
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Verified,
        };
        let manager = Manager::from_config(config, connector, recycling);
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(1)
            .build();
        Self(pool.unwrap())
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        let body = async |client: &mut ClientWrapper| sleep(client.deref()).await;
        calls!(self.0, call, key, options, body, {
            let mut client = self.0.get().await.unwrap();
            in_transaction(&mut client, call, key, options).await
        })
    }

    async fn check(&mut self) {
        let client = self.0.get().await.unwrap();
        client.batch_execute("SELECT 1").await.unwrap();
    }
}
