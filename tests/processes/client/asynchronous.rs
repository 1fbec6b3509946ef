//! diesel-async with bb8. Some futures are dropped.

use std::time::Duration;

use advisory_locking::AsyncPooledAdvisoryLocking;
use diesel::sql_query;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{CLIENTS, Shared, url};
use crate::history::{Event, Mode, Outcome, now};
use crate::work::{Body, Failure, How, Plan, key, outcome};

type PgPool = bb8::Pool<AsyncPgConnection>;

pub(super) fn run(shared: &Shared) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
        let pool: PgPool = bb8::Pool::builder()
            .max_size(CLIENTS)
            .connection_timeout(Duration::from_secs(2))
            .build_unchecked(manager);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| tokio::spawn(serve(pool.clone(), shared.clone(), client)))
            .collect();
        for client in clients {
            client.await.unwrap();
        }
    });
}

async fn serve(pool: PgPool, shared: Shared, client: u32) {
    let mut random = shared.random(client);
    while shared.goes_on() {
        let plan = Plan::draw(&mut random, shared.recorder.next_call());
        let outcome = match plan.patience {
            None => outcome(one(&pool, plan, &shared).await),
            Some(patience) => {
                // It is not dropped before this, so until then it held what it held.
                let until = now() + u64::try_from(patience.as_nanos()).unwrap();
                match tokio::time::timeout(patience, one(&pool, plan, &shared)).await {
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

async fn one(pool: &PgPool, plan: Plan, shared: &Shared) -> Result<(), Failure> {
    let body = async |conn: &mut AsyncPgConnection| body(conn, plan, shared).await;
    match plan.how {
        How::Guard => {
            let acquired = pool.acquire_advisory_lock(key(plan.key), plan.options());
            let mut guard = acquired.await?;
            self::body(&mut guard, plan, shared).await?;
            Ok(guard.release().await?)
        }
        How::With => {
            pool.with_advisory_lock(key(plan.key), plan.options(), body)
                .await
        }
        How::Transaction => {
            pool.with_advisory_xact_lock(key(plan.key), plan.options(), body)
                .await
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
