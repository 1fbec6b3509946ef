//! Diesel's `PgConnection`.

use diesel::Connection;
use diesel::pg::PgConnection;
use testkit::server::connect_to;

use super::postgres::{self, Adapter};
use crate::actor::{Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};

pub(crate) const DIESEL: Adapter = Adapter::Blocking(|url, channel| {
    actor_blocking::connection(&mut connect_to(url), channel);
});

impl Client for PgConnection {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        postgres::run_sql(self, command)
    }

    fn begin_test(&mut self) -> Outcome {
        self.begin_test_transaction()
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}
