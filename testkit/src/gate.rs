//! A lock that another session holds, for a statement to wait for on the server.

use advisory_locking::{LockKey, LockMode};
use diesel::pg::PgConnection;

use crate::observer::{LockEntry, Observe, lock_call};
use crate::server::{connect, fresh_key};

/// A key that is held until [`open`](Self::open).
#[allow(missing_debug_implementations, reason = "a connection has none")]
pub struct Gate {
    pub key: LockKey,
    holder: PgConnection,
}

impl Gate {
    pub fn closed() -> Self {
        let (key, mut holder) = (fresh_key(), connect());
        holder.run(&format!("SELECT {}", call("pg_advisory_lock", &key)));
        Self { key, holder }
    }

    /// Returns a statement that ends when the gate is opened, and keeps no lock.
    pub fn statement(&self) -> String {
        format!("SELECT {}", call("pg_advisory_xact_lock", &self.key))
    }

    /// Polls a call until its body waits at the gate, and drops it there.
    pub async fn drop_there<F: Future + Send>(&mut self, observer: &mut PgConnection, call: F) {
        tokio::select! {
            _ = call => panic!("the body did not wait"),
            () = self.reached(observer) => {}
        }
    }

    /// Waits until a session waits at the gate.
    pub async fn reached(&mut self, observer: &mut PgConnection) {
        let waits = |entries: &[LockEntry]| entries.len() == 2;
        observer
            .wait_for(&self.key, waits, "a session at the gate")
            .await;
    }

    pub fn open(mut self) {
        let unlock = call("pg_advisory_unlock", &self.key);
        self.holder.run(&format!("SELECT {unlock}"));
    }
}

fn call(function: &str, key: &LockKey) -> String {
    lock_call(function, key.raw(), LockMode::Exclusive)
}
