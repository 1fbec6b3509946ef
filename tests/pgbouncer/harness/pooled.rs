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
    fails_on_lost_statements: bool,
    ends_raw_transactions: bool,
}

impl Pooled {
    /// A client that sends each lock statement unprepared, or prepares a lost one again.
    pub(crate) fn survives_lost_statements(self) -> Self {
        Self {
            fails_on_lost_statements: false,
            ..self
        }
    }

    /// A pool that closes a connection in a transaction that plain SQL began.
    pub(crate) fn ends_raw_transactions(self) -> Self {
        Self {
            ends_raw_transactions: true,
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
        fails_on_lost_statements: true,
        ends_raw_transactions: false,
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

    fn ends_raw_transactions(&self) -> bool {
        self.ends_raw_transactions
    }

    fn fails_on_lost_statements(&self) -> bool {
        self.fails_on_lost_statements
    }
}
