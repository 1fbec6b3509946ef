//! The role's settings that end statements, transactions or sessions after a time: without effect
//! on a wait that is longer.

use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockOptions};
use testkit::observer::{LockEntry, Observe};
use testkit::server::{block, connect, fresh_key, url};
use testkit::temp::TempRole;
use testkit::timeouts::{limits_transactions, timeout_settings};

use crate::adapters::{Adapter, Borrowed, Call, Pooled};
use crate::pools::{Bb8, Deadpool, Mobc};

/// Long enough for a stalled machine: some of the settings also count while the client is idle.
const TIMEOUT: &str = "3s";
const LONGER: Duration = Duration::from_millis(3500);

/// Makes a call as the role, which waits for longer than each setting.
async fn wait_longer<A: Adapter>(role: &TempRole, call: Call) {
    let (mut holder, mut observer, key) = (connect(), connect(), fresh_key());
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let guard = guard.unwrap();
    let mut adapter = A::open(&role.url(&url())).await;
    let wait = adapter.call(call, &key, block());
    let meanwhile = async {
        let queued = |entries: &[LockEntry]| entries.len() == 2;
        observer.wait_for(&key, queued, "a waiter").await;
        tokio::time::sleep(LONGER).await;
        guard.release().unwrap();
    };
    let (granted, ()) = tokio::join!(wait, meanwhile);
    granted.unwrap_or_else(|error| panic!("{}, {call:?}: {error:?}", A::NAME));
}

async fn timeouts_of_the_role_end_no_wait<A: Adapter>() {
    let role = TempRole::create();
    for name in timeout_settings(&mut connect()) {
        role.set(&format!("{name} = '{TIMEOUT}'"));
    }
    wait_longer::<A>(&role, Call::Acquire).await;
    // The caller's limit of its own transaction counts.
    if limits_transactions(&mut connect()) {
        role.set("transaction_timeout = 0");
    }
    wait_longer::<A>(&role, Call::InTransaction).await;
}

macro_rules! on_adapters {
    ($($name:ident => $adapter:ty;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            timeouts_of_the_role_end_no_wait::<$adapter>().await;
        }
    )*};
}
on_adapters! {
    borrowed => Borrowed;
    bb8 => Pooled<Bb8>;
    deadpool => Pooled<Deadpool>;
    mobc => Pooled<Mobc>;
    sea_orm => crate::sea_orm::SeaOrm;
    sqlx_connection => crate::sqlx::Borrowed;
    sqlx_pool => crate::sqlx::Pooled;
    client => crate::tokio_postgres::Borrowed;
    client_in_deadpool => crate::tokio_postgres::Deadpool;
}
