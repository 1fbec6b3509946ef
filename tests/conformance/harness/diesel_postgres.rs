//! Diesel's `PgConnection`.

use diesel::Connection;
use diesel::pg::PgConnection;

use super::postgres::{self, Observer, on_postgres};
use crate::actor::{Mail, Outcome, Raw};
use crate::serve::{self, Client};
use crate::stage::Harness;

pub(crate) struct DieselPostgres {
    observer: Observer,
}

pub(crate) fn new() -> DieselPostgres {
    DieselPostgres {
        observer: Observer::new(),
    }
}

impl Harness for DieselPostgres {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        Box::new(|mail| serve::connection(&mut postgres::connect(), mail))
    }

    on_postgres!();
}

impl Client for PgConnection {
    fn raw(&mut self, raw: Raw) -> Outcome {
        postgres::raw(self, raw)
    }

    fn begin_test(&mut self) -> Outcome {
        self.begin_test_transaction()
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}
