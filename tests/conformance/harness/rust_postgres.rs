//! The blocking crate postgres: a client, and a pool of r2d2.

use ::postgres::{Client, NoTls};
use ::r2d2_postgres::PostgresConnectionManager;

use super::postgres::{self, Adapter, POOL_LIMIT, SqlText};
use crate::actor::{Outcome, SqlCommand};
use crate::{actor_blocking, actor_pooled};

pub(crate) const POSTGRES: Adapter = Adapter::Blocking(|url, channel| {
    let mut client = Client::connect(url, NoTls).expect("the server accepts connections");
    actor_blocking::connection(&mut client, channel);
});

pub(crate) const R2D2: Adapter = Adapter::Blocking(|url, channel| {
    let config = url.parse().expect("the address of the server");
    let pool = ::r2d2::Pool::builder()
        .max_size(1)
        .connection_timeout(POOL_LIMIT)
        .build_unchecked(PostgresConnectionManager::new(config, NoTls));
    actor_pooled::pool(&pool, channel);
});

impl actor_blocking::Client for Client {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        match postgres::sql_text(command) {
            SqlText::Run(sql) => {
                let ran = self.batch_execute(&sql);
                ran.map_or(Outcome::ClientFailed, |()| Outcome::Done)
            }
            SqlText::Query(sql) => {
                let row = self.query_typed_one(&sql, &[]);
                let number = row.and_then(|row| row.try_get(0));
                number.map_or(Outcome::ClientFailed, Outcome::Answered)
            }
        }
    }

    /// The crate has no test transactions.
    fn begin_test(&mut self) -> Outcome {
        Outcome::Unsupported
    }
}
