//! Actors whose connections go through a pooler. The observer's is direct.

use crate::actor::ActorChannel;
use crate::fixture::Harness;
use crate::harness::postgres::{Observer, on_postgres};
use crate::pooler::{Mode, Pooler};

/// More than any case has actors.
const SESSIONS: u32 = 8;

pub(crate) struct Pooled {
    pooler: Pooler,
    observer: Observer,
    client: Client,
}

/// Which client an actor has.
#[derive(Clone, Copy)]
pub(crate) enum Client {
    /// What its thread runs on the URL of the pooler.
    Blocking(fn(&str, &ActorChannel)),
    /// The same, where nobody can wait for a rollback while a panic unwinds.
    Async(fn(&str, &ActorChannel)),
}

pub(crate) fn session_mode(client: Client) -> Pooled {
    through(Mode::Session, client)
}

pub(crate) fn transaction_mode(client: Client) -> Pooled {
    through(Mode::Transaction, client)
}

fn through(mode: Mode, client: Client) -> Pooled {
    Pooled {
        pooler: Pooler::start(mode, SESSIONS, ""),
        observer: Observer::new(),
        client,
    }
}

impl Harness for Pooled {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        let (Client::Blocking(serve) | Client::Async(serve)) = self.client;
        let url = self.pooler.url();
        Box::new(move |channel| serve(&url, channel))
    }

    fn survives_panics(&self) -> bool {
        matches!(self.client, Client::Blocking(_))
    }

    on_postgres!();
}
