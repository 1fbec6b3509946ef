//! tokio-postgres: a client, and pools of bb8 and deadpool-postgres.

use ::tokio_postgres::{Client, Config, Error, NoTls};
use bb8_postgres::PostgresConnectionManager;
use deadpool_postgres::{ClientWrapper, Manager, ManagerConfig, RecyclingMethod};

use super::postgres::{self, Adapter, POOL_LIMIT, SqlText};
use crate::actor::{Outcome, SqlCommand};
use crate::actor_async::{self, AsyncClient, on_runtime};

async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = ::tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn config(url: &str) -> Config {
    url.parse().expect("the address of the server")
}

pub(crate) const TOKIO_POSTGRES: Adapter = Adapter::Async(|url, channel| {
    on_runtime(async {
        let client = connect(url).await;
        let mut client = client.expect("the server accepts connections");
        actor_async::connection(&mut client, channel).await;
    });
});

pub(crate) const BB8: Adapter = Adapter::Async(|url, channel| {
    on_runtime(async {
        let pool = bb8::Pool::builder()
            .max_size(1)
            .connection_timeout(POOL_LIMIT)
            .build(PostgresConnectionManager::new(config(url), NoTls))
            .await;
        actor_async::pool(&pool.expect("connections can be made"), channel).await;
    });
});

pub(crate) const DEADPOOL: Adapter = Adapter::Async(|url, channel| {
    on_runtime(async {
        // The client knows that the server has closed its connection once its task has read that.
        // Before, only a statement finds it.
        let checked = ManagerConfig {
            recycling_method: RecyclingMethod::Verified,
        };
        let manager = Manager::from_config(config(url), NoTls, checked);
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(1)
            .build();
        actor_async::pool(&pool.expect("a pool can be made"), channel).await;
    });
});

async fn run_sql(client: &Client, command: SqlCommand) -> Outcome {
    match postgres::sql_text(command) {
        SqlText::Run(sql) => {
            let run = client.batch_execute(&sql).await;
            run.map_or(Outcome::ClientFailed, |()| Outcome::Done)
        }
        SqlText::Query(sql) => {
            let row = client.query_typed_one(&sql, &[]).await;
            let number = row.and_then(|row| row.try_get(0));
            number.map_or(Outcome::ClientFailed, Outcome::Answered)
        }
    }
}

impl AsyncClient for Client {
    async fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        run_sql(self, command).await
    }

    /// tokio-postgres has no test transactions.
    async fn begin_test(&mut self) -> Outcome {
        Outcome::Unsupported
    }
}

impl AsyncClient for ClientWrapper {
    async fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        run_sql(self, command).await
    }

    async fn begin_test(&mut self) -> Outcome {
        Outcome::Unsupported
    }
}
