//! Diesel's `PgConnection`.

use diesel::Connection;
use diesel::pg::PgConnection;

use super::postgres::{self, Endpoint, Observer, on_postgres};
use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};
use crate::fixture::Harness;

pub(crate) struct DieselPostgres {
    endpoint: Endpoint,
    observer: Observer,
}

pub(crate) fn new() -> DieselPostgres {
    at(&Endpoint::default())
}

pub(crate) fn at(endpoint: &Endpoint) -> DieselPostgres {
    DieselPostgres {
        endpoint: endpoint.clone(),
        observer: Observer::at(endpoint),
    }
}

impl Harness for DieselPostgres {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        let url = self.endpoint.actors.clone();
        Box::new(move |channel| actor_blocking::connection(&mut postgres::connect(&url), channel))
    }

    on_postgres!();
}

impl Client for PgConnection {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        postgres::run_sql(self, command)
    }

    fn begin_test(&mut self) -> Outcome {
        self.begin_test_transaction()
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}
