//! Diesel's `PgConnection`.

use diesel::Connection;
use diesel::pg::PgConnection;

use super::postgres::{self, Observer, Place, on_postgres};
use crate::actor::{Mail, Outcome, Raw};
use crate::serve::{self, Client};
use crate::stage::Harness;

pub(crate) struct DieselPostgres {
    place: Place,
    observer: Observer,
}

pub(crate) fn new() -> DieselPostgres {
    at(&Place::here())
}

pub(crate) fn at(place: &Place) -> DieselPostgres {
    DieselPostgres {
        place: place.clone(),
        observer: Observer::at(place),
    }
}

impl Harness for DieselPostgres {
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        let url = self.place.actors.clone();
        Box::new(move |mail| serve::connection(&mut postgres::connect(&url), mail))
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
