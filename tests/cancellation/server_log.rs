//! The lines that calls write to the server's log, as `docs/operating.md` lists them.
#![allow(
    clippy::future_not_send,
    reason = "the guard of the private server stays on one thread"
)]

use std::fs;
use std::time::Duration;

use advisory_locking::LockErrorKind::{HeldElsewhere, TimedOut};
use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions, WaitStrategy};
use diesel::pg::PgConnection;
use testkit::cluster::ClusterGuard;
use testkit::observer::{LockEntry, Observe};
use testkit::server::{
    connect_to, eventually_async, fresh_key, fresh_name, kind_of, with_parameters,
};

use crate::adapters::{Adapter, Borrowed, CALLS, Call};

const REACHED_LIMIT: &str = "ERROR:  canceling statement due to lock timeout";
const CANCELED: &str = "ERROR:  canceling statement due to user request";
const TERMINATED: &str = "FATAL:  terminating connection due to administrator command";

const IN_AND_OUTSIDE_TRANSACTIONS: [Call; 3] =
    [Call::Acquire, Call::WithTransaction, Call::InTransaction];

/// A private server, and an address whose sessions have a name of their own in the log.
struct Log {
    server: ClusterGuard,
    name: String,
}

impl Log {
    fn new() -> Self {
        Self {
            server: ClusterGuard::acquire(),
            name: fresh_name(),
        }
    }

    fn url(&self) -> String {
        let name = format!("application_name={}", self.name);
        with_parameters(&self.server.url(), &name)
    }

    /// Returns the messages of the named sessions that are a warning or worse.
    fn messages(&self) -> Vec<String> {
        let log = fs::read(self.server.log()).expect("the log can be read");
        let own = format!("] {} ", self.name);
        let log = String::from_utf8_lossy(&log);
        let messages = log.lines().filter_map(|line| line.split_once(&own));
        let messages = messages.map(|(_, message)| message);
        messages
            .filter(|message| {
                let levels = ["WARNING:", "ERROR:", "FATAL:", "PANIC:"];
                levels.iter().any(|level| message.starts_with(level))
            })
            .map(str::to_owned)
            .collect()
    }
}

const fn within(strategy: WaitStrategy) -> LockOptions {
    LockOptions::wait_up_to(Duration::from_millis(50)).strategy(strategy)
}

/// On a free key, and on a key that another session holds, without a wait or with polls.
async fn ordinary_calls_write_nothing<A: Adapter>() {
    let log = Log::new();
    let (mut holder, key) = (connect_to(&log.server.url()), fresh_key());
    let mut adapter = A::open(&log.url()).await;
    let block = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    for call in CALLS {
        for options in [LockOptions::no_wait(), block] {
            adapter.call(call, &key, options).await.unwrap();
        }
    }
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let guard = guard.unwrap();
    for call in CALLS {
        for options in [LockOptions::no_wait(), within(WaitStrategy::Poll)] {
            let ended = kind_of(adapter.call(call, &key, options).await);
            assert!(
                matches!(ended, None | Some(HeldElsewhere | TimedOut)),
                "{}, {call:?}: {ended:?}",
                A::NAME
            );
        }
    }
    guard.release().unwrap();
    adapter.check().await;
    assert_eq!(log.messages(), [""; 0], "{}", A::NAME);
}

/// One line for a wait that reaches its limit, and those of its session for one that is dropped.
async fn ended_waits_write_their_reason<A: Adapter>(calls: &[Call], dropped: &[&str]) {
    let log = Log::new();
    let (mut holder, mut observer) = (connect_to(&log.server.url()), connect_to(&log.server.url()));
    let key = fresh_key();
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let _guard = guard.unwrap();
    let mut adapter = A::open(&log.url()).await;
    let mut expected = Vec::new();
    for call in IN_AND_OUTSIDE_TRANSACTIONS {
        let ended = adapter.call(call, &key, within(WaitStrategy::Block)).await;
        assert_eq!(kind_of(ended), Some(TimedOut), "{}, {call:?}", A::NAME);
        expected.push(REACHED_LIMIT);
        assert_eq!(log.messages(), expected, "{}, {call:?}", A::NAME);
    }

    for call in calls {
        let mut messages = drop_wait::<A>(&log, *call, &key, &mut observer).await;
        // On a stalled machine, the second cancel request hits a statement behind the wait.
        for _ in 1..10 {
            if messages.iter().filter(|text| *text == CANCELED).count() <= 1 {
                break;
            }
            messages = drop_wait::<A>(&log, *call, &key, &mut observer).await;
        }
        assert_eq!(messages, dropped, "{}, {call:?}", A::NAME);
    }
}

/// Drops a wait in the server's queue, and returns the messages of its session.
async fn drop_wait<A: Adapter>(
    log: &Log,
    call: Call,
    key: &LockKey,
    observer: &mut PgConnection,
) -> Vec<String> {
    let before = log.messages().len();
    let mut adapter = A::open(&log.url()).await;
    let block = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    let queued = |entries: &[LockEntry]| entries.len() == 2;
    tokio::select! {
        ended = adapter.call(call, key, block) => panic!("{}, {call:?}: {ended:?}", A::NAME),
        () = observer.wait_for(key, queued, "a waiter") => {}
    }
    let mut messages = Vec::new();
    let ended = format!("{}, {call:?}: the end of the session", A::NAME);
    eventually_async(&ended, || {
        messages = log.messages().split_off(before);
        messages.iter().any(|text| text == TERMINATED)
    })
    .await;
    observer.wait_until_waiters(key, 0);
    messages
}

#[test]
fn diesel_writes_the_ends_of_waits_only() {
    let log = Log::new();
    let (mut holder, key) = (connect_to(&log.server.url()), fresh_key());
    let mut conn = connect_to(&log.url());
    let dropped = conn.acquire_advisory_lock(fresh_key(), LockOptions::no_wait());
    drop(dropped.unwrap());
    let mut call = |options| {
        let body = |_: &mut PgConnection| Ok::<_, LockError>(());
        let session = kind_of(conn.with_advisory_lock(&key, options, body));
        let transaction = kind_of(conn.with_advisory_xact_lock(&key, options, body));
        assert_eq!(session, transaction);
        session
    };
    assert_eq!(call(LockOptions::no_wait()), None);
    assert_eq!(call(within(WaitStrategy::Block)), None);
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let _guard = guard.unwrap();
    assert_eq!(call(LockOptions::no_wait()), Some(HeldElsewhere));
    assert_eq!(call(within(WaitStrategy::Poll)), Some(TimedOut));
    assert_eq!(log.messages(), [""; 0]);
    assert_eq!(call(within(WaitStrategy::Block)), Some(TimedOut));
    assert_eq!(log.messages(), [REACHED_LIMIT; 2]);
}

macro_rules! on_adapters {
    ($($name:ident => $adapter:ty, $calls:expr, $dropped:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn ordinary_calls_write_nothing() {
                super::ordinary_calls_write_nothing::<$adapter>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn ended_waits_write_their_reason() {
                super::ended_waits_write_their_reason::<$adapter>(&$calls, &$dropped).await;
            }
        }
    )*};
}
// sqlx waits for a `ROLLBACK` of its own in a transaction.
on_adapters! {
    diesel_async => Borrowed, IN_AND_OUTSIDE_TRANSACTIONS, [CANCELED, TERMINATED];
    sea_orm => crate::sea_orm::SeaOrm, [Call::Acquire], [TERMINATED];
    sqlx => crate::sqlx::Pooled, [Call::Acquire], [TERMINATED];
    tokio_postgres => crate::tokio_postgres::Borrowed, IN_AND_OUTSIDE_TRANSACTIONS, [CANCELED, TERMINATED];
}
