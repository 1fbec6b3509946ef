//! Blocking callers of a lock manager over Diesel and r2d2.

use std::thread;
use std::time::Duration;

use advisory_locking::lock_manager::{LockManager, OwnedLockGuard};
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{OptionalExtension, RunQueryDsl, sql_query};

use super::super::blocking::run_clients;
use super::super::{LOCK_MANAGER_CLIENTS, Shared, url_as};
use super::{
    Call, SESSIONS, SecondHold, WORKER_APPLICATION, application, both, find_session_sql, options,
    read_sql, write_sql,
};
use crate::history::Mode;
use crate::work::{Body, Failure, PlannedCall, Reading, key, outcome};

type PgPool = Pool<ConnectionManager<PgConnection>>;

pub(in crate::client) fn run(shared: &Shared) {
    let pool = |application: &str, connections| -> PgPool {
        Pool::builder()
            .max_size(connections)
            .min_idle(Some(0))
            .connection_timeout(Duration::from_secs(2))
            .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
            .build_unchecked(ConnectionManager::new(url_as(application)))
    };
    let sessions = pool(&application(shared), SESSIONS);
    let manager = LockManager::over_blocking_pool_with(sessions, options()).unwrap();
    let workers = pool(WORKER_APPLICATION, LOCK_MANAGER_CLIENTS);
    run_clients(shared, LOCK_MANAGER_CLIENTS, |plan| {
        one(&manager, &workers, plan, shared)
    });
}

fn one(
    manager: &LockManager,
    workers: &PgPool,
    plan: PlannedCall,
    shared: &Shared,
) -> Result<(), Failure> {
    let first = key(plan.key);
    match Call::of(&plan) {
        Call::Fenced => {
            let guard = manager.acquire_fenced_blocking(first, plan.options())?;
            let done = body(workers, plan, shared, &guard);
            let released = guard.release_blocking();
            done.and(released.map_err(Failure::from))
        }
        Call::Plain => {
            let guard = manager.acquire_blocking(first, plan.options())?;
            let done = body(workers, plan, shared, &guard);
            let released = guard.release_blocking();
            done.and(released.map_err(Failure::from))
        }
        Call::With => manager.with_lock_blocking(first, plan.options(), |guard| {
            body(workers, plan, shared, guard)
        }),
        Call::All => {
            let (keys, second) = both(plan, shared);
            let guards = manager.acquire_all_blocking(keys, plan.options())?;
            let mut second_hold = SecondHold::begin(second, shared);
            let done = bodies(workers, plan, second, &second_hold, guards.guards(), shared);
            second_hold.end_body();
            let mut released = Ok(());
            for guard in guards {
                let is_second = *guard.key() == key(second.key);
                let result = guard.release_blocking().map_err(Failure::from);
                if is_second {
                    second_hold.outcome = outcome(result);
                } else {
                    released = result;
                }
            }
            done.and(released)
        }
        Call::Dropped => {
            let guard = manager.acquire_blocking(first, plan.options())?;
            body(workers, plan, shared, &guard)?;
            drop(guard);
            Err(Failure::Dropped)
        }
    }
}

fn bodies(
    workers: &PgPool,
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
    let mut conn = workers.get().map_err(|_| Failure::Client)?;
    find(&mut conn, &body, &plan, shared, of(&plan)?)?;
    find(&mut conn, second_hold.body(), &second, shared, of(&second)?)?;
    thread::sleep(plan.pause);
    Ok(())
}

fn body(
    workers: &PgPool,
    plan: PlannedCall,
    shared: &Shared,
    guard: &OwnedLockGuard,
) -> Result<(), Failure> {
    let mut body = Body::begin(plan, &shared.recorder, &shared.storage);
    let mut conn = workers.get().map_err(|_| Failure::Client)?;
    find(&mut conn, &body, &plan, shared, guard)?;
    let Some(token) = guard.fencing_token() else {
        thread::sleep(plan.pause);
        return Ok(());
    };
    let mut read = || {
        let read = sql_query(read_sql(&plan, token)).get_result::<Reading>(&mut conn);
        read.optional()
    };
    let first = read()?;
    body.read_fenced(first.as_ref());
    thread::sleep(plan.pause);
    match (plan.mode, first) {
        (_, None) => {}
        (Mode::Exclusive, Some(_)) => {
            let number = body.writes();
            let rows = sql_query(write_sql(&plan, number, token)).execute(&mut conn)?;
            body.wrote_fenced(number, rows == 1);
        }
        (Mode::Shared, Some(_)) => {
            if let Some(again) = read()? {
                body.read_again(&again);
            }
        }
    }
    Ok(())
}

fn find(
    conn: &mut PgConnection,
    body: &Body<'_>,
    plan: &PlannedCall,
    shared: &Shared,
    guard: &OwnedLockGuard,
) -> Result<(), Failure> {
    let session = loop {
        let session: Reading = sql_query(find_session_sql(plan, shared)).get_result(conn)?;
        if !session.is_ambiguous() {
            break session;
        }
    };
    body.found(&session, guard.generation());
    Ok(())
}
