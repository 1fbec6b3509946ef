//! diesel-async with bb8. Some futures are dropped.

use std::future::Future;
use std::time::Duration;

use advisory_locking::AsyncPooledAdvisoryLocking;
use diesel::sql_query;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{CLIENTS, Shared, url};
use crate::history::{Event, Mode, Outcome, now};
use crate::work::{Body, Failure, How, Plan, key, outcome};

type PgPool = bb8::Pool<AsyncPgConnection>;

/// Where the clients of a process have their connections from.
pub(super) trait Source: Clone + Send + Sync + 'static {
    /// Makes one call.
    fn one(&self, plan: Plan, shared: &Shared) -> impl Future<Output = Result<(), Failure>> + Send;
}

pub(super) fn run(shared: &Shared) {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
    serve_all(shared, CLIENTS, async {
        bb8::Pool::builder()
            .max_size(CLIENTS)
            .connection_timeout(Duration::from_secs(2))
            .build_unchecked(manager)
    });
}

/// Runs the clients of a process to their end.
pub(super) fn serve_all<S: Source>(shared: &Shared, clients: u32, source: impl Future<Output = S>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let source = source.await;
        let clients: Vec<_> = (0..clients)
            .map(|client| tokio::spawn(serve(source.clone(), shared.clone(), client)))
            .collect();
        for client in clients {
            client.await.unwrap();
        }
    });
}

/// Makes one call after the other, and drops those that have exhausted its patience.
async fn serve<S: Source>(source: S, shared: Shared, client: u32) {
    let mut random = shared.random(client);
    while shared.goes_on() {
        let plan = Plan::draw(&mut random, shared.recorder.next_call());
        let outcome = match plan.patience {
            None => outcome(source.one(plan, &shared).await),
            Some(patience) => {
                // It is not dropped before this, so until then it held what it held.
                let until = now() + u64::try_from(patience.as_nanos()).unwrap();
                match tokio::time::timeout(patience, source.one(plan, &shared)).await {
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

impl Source for PgPool {
    async fn one(&self, plan: Plan, shared: &Shared) -> Result<(), Failure> {
        let body = async |conn: &mut AsyncPgConnection| body(conn, plan, shared).await;
        match plan.how {
            How::Guard => {
                let acquired = self.acquire_advisory_lock(key(plan.key), plan.options());
                let mut guard = acquired.await?;
                self::body(&mut guard, plan, shared).await?;
                Ok(guard.release().await?)
            }
            How::With => {
                self.with_advisory_lock(key(plan.key), plan.options(), body)
                    .await
            }
            How::Transaction => {
                self.with_advisory_xact_lock(key(plan.key), plan.options(), body)
                    .await
            }
        }
    }
}

async fn body(conn: &mut AsyncPgConnection, plan: Plan, shared: &Shared) -> Result<(), Failure> {
    let mut body = Body::begin(plan, &shared.recorder, &shared.storage);
    body.read(&sql_query(plan.reading()).get_result(conn).await?);
    tokio::time::sleep(plan.pause).await;
    match plan.mode {
        Mode::Exclusive => {
            let number = body.writes();
            sql_query(plan.writing(number)).execute(conn).await?;
            body.wrote(number);
        }
        Mode::Shared => body.read_again(&sql_query(plan.reading()).get_result(conn).await?),
    }
    Ok(())
}
