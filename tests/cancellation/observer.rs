//! What the server shows of a key, seen from a connection of its own.

use std::time::{Duration, Instant};

use advisory_locking::{KeyNamespace, LockKey, RawLockKey};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer};

/// How long a slow machine may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn database_url() -> String {
    std::env::var("DATABASE_URL")
        .expect("no DATABASE_URL: run ./scripts/test, which starts a server")
}

/// A key of this run's own.
pub(crate) fn fresh_key() -> LockKey {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    KeyNamespace::new("cancellation")
        .within(std::process::id())
        .key(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[derive(Debug, QueryableByName)]
pub(crate) struct Held {
    #[diesel(sql_type = Integer)]
    #[allow(dead_code, reason = "not every program that shares this asks for it")]
    pub(crate) pid: i32,
    #[diesel(sql_type = Bool)]
    pub(crate) granted: bool,
}

pub(crate) struct Observer(PgConnection);

impl Observer {
    pub(crate) fn new() -> Self {
        Self(PgConnection::establish(&database_url()).unwrap())
    }

    /// Who holds the key or waits for it.
    pub(crate) fn shown(&mut self, key: &LockKey) -> Vec<Held> {
        let (classid, objid, objsubid) = key.raw().pg_locks_columns();
        diesel::sql_query(
            "SELECT pid, granted FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid \
             AND objid = $2::bigint::oid AND objsubid = $3 \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .bind::<BigInt, _>(i64::from(classid))
        .bind::<BigInt, _>(i64::from(objid))
        .bind::<Integer, _>(i32::from(objsubid))
        .load(&mut self.0)
        .unwrap()
    }

    /// Until `wanted` holds of what is shown. It takes milliseconds, or never comes, since the waits of these tests have no limit; a slow
    /// machine may take its time.
    pub(crate) async fn wait_until(
        &mut self,
        key: &LockKey,
        wanted: impl Fn(&[Held]) -> bool,
        what: &str,
    ) {
        let began = Instant::now();
        loop {
            let shown = self.shown(key);
            if wanted(&shown) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {shown:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Nobody holds the key or waits for it any more.
    pub(crate) async fn assert_free(&mut self, key: &LockKey, after: &str) {
        self.wait_until(
            key,
            <[Held]>::is_empty,
            &format!("after {after} the key is not free"),
        )
        .await;
    }
}

/// A lock that somebody else holds, for a body to wait for on the server.
pub(crate) struct Gate {
    pub(crate) key: LockKey,
    holder: PgConnection,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        let (key, mut holder) = (
            fresh_key(),
            PgConnection::establish(&database_url()).unwrap(),
        );
        diesel::sql_query(format!("SELECT pg_advisory_lock({})", number(&key)))
            .execute(&mut holder)
            .unwrap();
        Self { key, holder }
    }

    /// A statement that ends when the gate is opened, and keeps nothing.
    pub(crate) fn statement(&self) -> String {
        format!("SELECT pg_advisory_xact_lock({})", number(&self.key))
    }

    /// Runs a call until its body waits at the gate, and drops it there.
    pub(crate) async fn drop_there<F: Future + Send>(&mut self, observer: &mut Observer, call: F) {
        tokio::select! {
            _ = call => panic!("the body did not wait"),
            () = self.reached(observer) => {}
        }
    }

    /// Somebody waits at the gate.
    pub(crate) async fn reached(&mut self, observer: &mut Observer) {
        let waits = |shown: &[Held]| shown.len() == 2;
        observer
            .wait_until(&self.key, waits, "the body begins")
            .await;
    }

    pub(crate) fn open(mut self) {
        diesel::sql_query(format!("SELECT pg_advisory_unlock({})", number(&self.key)))
            .execute(&mut self.holder)
            .unwrap();
    }
}

fn number(key: &LockKey) -> i64 {
    match key.raw() {
        RawLockKey::Single(number) => number,
        space => panic!("{space:?}"),
    }
}
