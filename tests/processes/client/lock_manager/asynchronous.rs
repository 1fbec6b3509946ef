//! Async callers of a lock manager over diesel-async and bb8. Some futures are dropped.

use std::time::Duration;

use advisory_locking::lock_manager::{LockManager, OwnedLockGuard};
use diesel::{OptionalExtension, sql_query};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::super::asynchronous::{Source, run_clients};
use super::super::{LOCK_MANAGER_CLIENTS, Shared, url_as};
use super::{
    Call, SESSIONS, SecondHold, WORKER_APPLICATION, application, both, find_session_sql, options,
    read_sql, write_sql,
};
use crate::history::Mode;
use crate::work::{Body, Failure, PlannedCall, Reading, key, outcome};

type PgPool = bb8::Pool<AsyncPgConnection>;

#[derive(Clone)]
struct Clients {
    manager: LockManager,
    workers: PgPool,
}

pub(in crate::client) fn run(shared: &Shared) {
    let pool = |application: &str, connections| {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url_as(application));
        bb8::Pool::builder()
            .max_size(connections)
            .connection_timeout(Duration::from_secs(2))
            .build_unchecked(manager)
    };
    run_clients(shared, LOCK_MANAGER_CLIENTS, async {
        let sessions = pool(&application(shared), SESSIONS);
        Clients {
            manager: LockManager::over_async_pool_with(sessions, options()).unwrap(),
            workers: pool(WORKER_APPLICATION, LOCK_MANAGER_CLIENTS),
        }
    });
}

impl Source for Clients {
    async fn run_call(&self, plan: PlannedCall, shared: &Shared) -> Result<(), Failure> {
        let (manager, first) = (&self.manager, key(plan.key));
        match Call::of(&plan) {
            Call::Fenced => {
                let guard = manager.acquire_fenced(first, plan.options()).await?;
                let done = self.body(plan, shared, &guard).await;
                let released = guard.release().await;
                done.and(released.map_err(Failure::from))
            }
            Call::Plain => {
                let guard = manager.acquire(first, plan.options()).await?;
                let done = self.body(plan, shared, &guard).await;
                let released = guard.release().await;
                done.and(released.map_err(Failure::from))
            }
            Call::With => {
                manager
                    .with_lock_while_held(first, plan.options(), async |guard| {
                        self.body(plan, shared, guard).await
                    })
                    .await
            }
            Call::All => {
                let (keys, second) = both(plan, shared);
                let guards = manager.acquire_all(keys, plan.options()).await?;
                let mut second_hold = SecondHold::begin(second, shared);
                let done = self
                    .both(plan, second, &second_hold, guards.guards(), shared)
                    .await;
                second_hold.end_body();
                let mut released = Ok(());
                for guard in guards {
                    let is_second = *guard.key() == key(second.key);
                    let result = guard.release().await.map_err(Failure::from);
                    if is_second {
                        second_hold.outcome = outcome(result);
                    } else {
                        released = result;
                    }
                }
                done.and(released)
            }
            Call::Dropped => {
                let guard = manager.acquire(first, plan.options()).await?;
                self.body(plan, shared, &guard).await?;
                drop(guard);
                Err(Failure::Dropped)
            }
        }
    }
}

impl Clients {
    async fn both(
        &self,
        plan: PlannedCall,
        second: PlannedCall,
        second_hold: &SecondHold<'_>,
        guards: &[OwnedLockGuard],
        shared: &Shared,
    ) -> Result<(), Failure> {
        let of = |plan: &PlannedCall| {
            let key = key(plan.key);
            let mut guards = guards.iter();
            guards
                .find(|guard| *guard.key() == key)
                .ok_or(Failure::Client)
        };
        let body = Body::begin(plan, &shared.recorder, &shared.storage);
        let mut conn = self.workers.get().await.map_err(|_| Failure::Client)?;
        find(&mut conn, &body, &plan, shared, of(&plan)?).await?;
        find(&mut conn, second_hold.body(), &second, shared, of(&second)?).await?;
        tokio::time::sleep(plan.pause).await;
        Ok(())
    }

    async fn body(
        &self,
        plan: PlannedCall,
        shared: &Shared,
        guard: &OwnedLockGuard,
    ) -> Result<(), Failure> {
        let mut body = Body::begin(plan, &shared.recorder, &shared.storage);
        let mut conn = self.workers.get().await.map_err(|_| Failure::Client)?;
        find(&mut conn, &body, &plan, shared, guard).await?;
        let Some(token) = guard.fencing_token() else {
            tokio::time::sleep(plan.pause).await;
            return Ok(());
        };
        let mut read = async || {
            let read = sql_query(read_sql(&plan, token)).get_result::<Reading>(&mut conn);
            read.await.optional()
        };
        let first = read().await?;
        body.read_fenced(first.as_ref());
        tokio::time::sleep(plan.pause).await;
        match (plan.mode, first) {
            (_, None) => {}
            (Mode::Exclusive, Some(_)) => {
                let number = body.writes();
                let write = sql_query(write_sql(&plan, number, token));
                let rows = write.execute(&mut conn).await?;
                body.wrote_fenced(number, rows == 1);
            }
            (Mode::Shared, Some(_)) => {
                if let Some(again) = read().await? {
                    body.read_again(&again);
                }
            }
        }
        Ok(())
    }
}

async fn find(
    conn: &mut AsyncPgConnection,
    body: &Body<'_>,
    plan: &PlannedCall,
    shared: &Shared,
    guard: &OwnedLockGuard,
) -> Result<(), Failure> {
    let session = loop {
        let query = sql_query(find_session_sql(plan, shared));
        let session: Reading = query.get_result(conn).await?;
        if !session.is_ambiguous() {
            break session;
        }
    };
    body.found(&session, guard.generation());
    Ok(())
}
