//! Actors that connect through a pooler. The observer connects directly.

use crate::actor::ActorChannel;
use crate::fixture::{Harness, LockTable};
use crate::harness::postgres::{Adapter, Observer};
use crate::pooler::{Mode, Pooler};

/// More sessions than any case has actors.
const SESSIONS: u32 = 8;

pub(crate) struct Pooled {
    pooler: Pooler,
    observer: Observer,
    adapter: Adapter,
    prepares_statements: bool,
}

impl Pooled {
    /// A client that sends each lock statement unprepared.
    pub(crate) fn unprepared(self) -> Self {
        Self {
            prepares_statements: false,
            ..self
        }
    }
}

pub(crate) fn session_mode(adapter: Adapter) -> Pooled {
    through(Mode::Session, adapter)
}

pub(crate) fn transaction_mode(adapter: Adapter) -> Pooled {
    through(Mode::Transaction, adapter)
}

fn through(mode: Mode, adapter: Adapter) -> Pooled {
    Pooled {
        pooler: Pooler::start(mode, SESSIONS, ""),
        observer: Observer::new(),
        adapter,
        prepares_statements: true,
    }
}

impl Harness for Pooled {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        self.adapter.actor(self.pooler.url())
    }

    fn lock_table(&self) -> Option<&dyn LockTable> {
        Some(&self.observer)
    }

    fn survives_panics(&self) -> bool {
        self.adapter.survives_panics()
    }

    fn prepares_statements(&self) -> bool {
        self.prepares_statements
    }
}
