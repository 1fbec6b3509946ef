//! Clients of diesel-async with bb8. They drop some futures.

use std::future::Future;
use std::time::Duration;

use advisory_locking::AsyncPooledAdvisoryLocking;
use diesel::sql_query;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{CLIENTS, Shared, url};
use crate::history::{Event, Mode, Outcome, now};
use crate::work::{Body, CallKind, Failure, PlannedCall, key, outcome};

type PgPool = bb8::Pool<AsyncPgConnection>;

/// A pool or lock manager that the clients of a process share.
pub(super) trait Source: Clone + Send + Sync + 'static {
    /// Performs one call.
    fn run_call(
        &self,
        plan: PlannedCall,
        shared: &Shared,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

pub(super) fn run(shared: &Shared) {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
    run_clients(shared, CLIENTS, async {
        bb8::Pool::builder()
            .max_size(CLIENTS)
            .connection_timeout(Duration::from_secs(2))
            .build_unchecked(manager)
    });
}

/// Runs the clients of a process until its standard input ends.
pub(super) fn run_clients<S: Source>(
    shared: &Shared,
    clients: u32,
    source: impl Future<Output = S>,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let source = source.await;
        let clients: Vec<_> = (0..clients)
            .map(|client| tokio::spawn(run_client(source.clone(), shared.clone(), client)))
            .collect();
        for client in clients {
            client.await.unwrap();
        }
    });
}

/// Performs calls one after the other. Drops the future of a call after its `drop_after`.
async fn run_client<S: Source>(source: S, shared: Shared, client: u32) {
    let mut random = shared.random(client);
    while shared.is_running() {
        let plan = PlannedCall::random(&mut random, shared.recorder.next_call());
        let outcome = match plan.drop_after {
            None => outcome(source.run_call(plan, &shared).await),
            Some(limit) => {
                // The future is dropped at `until` or later, so it holds the lock until then.
                let until = now() + u64::try_from(limit.as_nanos()).unwrap();
                match tokio::time::timeout(limit, source.run_call(plan, &shared)).await {
                    Ok(result) => outcome(result),
                    Err(_) => {
                        shared.recorder.write(plan.call, Event::Until { at: until });
                        Outcome::Dropped
                    }
                }
            }
        };
        let event = Event::Ended { outcome, at: now() };
        shared.recorder.write(plan.call, event);
    }
}

/// Implements [`Source`] for a pool with connections of a type, by the `body` of the module.
macro_rules! source {
    ($pool:ty, $connection:ty) => {
        impl Source for $pool {
            async fn run_call(&self, plan: PlannedCall, shared: &Shared) -> Result<(), Failure> {
                let body = async |conn: &mut $connection| self::body(conn, plan, shared).await;
                let (key, options) = (key(plan.key), plan.options());
                match plan.kind {
                    CallKind::Guard => {
                        let mut guard = self.acquire_advisory_lock(key, options).await?;
                        self::body(&mut guard, plan, shared).await?;
                        Ok(guard.release().await?)
                    }
                    CallKind::With => self.with_advisory_lock(key, options, body).await,
                    CallKind::Transaction => self.with_advisory_xact_lock(key, options, body).await,
                }
            }
        }
    };
}
pub(super) use source;

source!(PgPool, AsyncPgConnection);

async fn body(
    conn: &mut AsyncPgConnection,
    plan: PlannedCall,
    shared: &Shared,
) -> Result<(), Failure> {
    let mut body = Body::begin(plan, &shared.recorder, &shared.storage);
    body.read(&sql_query(plan.select_sql()).get_result(conn).await?);
    tokio::time::sleep(plan.pause).await;
    match plan.mode {
        Mode::Exclusive => {
            let number = body.writes();
            sql_query(plan.update_sql(number)).execute(conn).await?;
            body.wrote(number);
        }
        Mode::Shared => body.read_again(&sql_query(plan.select_sql()).get_result(conn).await?),
    }
    Ok(())
}
