//! Clients of Diesel with r2d2.

use std::thread;
use std::time::Duration;

use advisory_locking::PooledAdvisoryLocking;
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{RunQueryDsl, sql_query};

use super::{CLIENTS, Shared, url};
use crate::history::{Event, Mode, now};
use crate::work::{Body, CallKind, Failure, PlannedCall, key, outcome};

type PgPool = Pool<ConnectionManager<PgConnection>>;

pub(super) fn run(shared: &Shared) {
    let pool = Pool::builder()
        .max_size(CLIENTS)
        .min_idle(Some(0))
        .connection_timeout(Duration::from_secs(2))
        .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
        .build_unchecked(ConnectionManager::new(url()));
    run_clients(shared, CLIENTS, |plan| run_call(&pool, plan, shared));
}

/// Runs the clients of a process until its standard input ends, each in its own thread.
pub(super) fn run_clients(
    shared: &Shared,
    clients: u32,
    run_call: impl Fn(PlannedCall) -> Result<(), Failure> + Sync,
) {
    let run_call = &run_call;
    thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut random = shared.random(client);
                while shared.is_running() {
                    let plan = PlannedCall::random(&mut random, shared.recorder.next_call());
                    let outcome = outcome(run_call(plan));
                    let event = Event::Ended { outcome, at: now() };
                    shared.recorder.write(plan.call, event);
                }
            });
        }
    });
}

fn run_call(pool: &PgPool, plan: PlannedCall, shared: &Shared) -> Result<(), Failure> {
    let body = |conn: &mut PgConnection| body(conn, plan, shared);
    match plan.kind {
        CallKind::Guard => {
            let mut guard = pool.acquire_advisory_lock(key(plan.key), plan.options())?;
            body(&mut guard)?;
            Ok(guard.release()?)
        }
        CallKind::With => pool.with_advisory_lock(key(plan.key), plan.options(), body),
        CallKind::Transaction => pool.with_advisory_xact_lock(key(plan.key), plan.options(), body),
    }
}

fn body(conn: &mut PgConnection, plan: PlannedCall, shared: &Shared) -> Result<(), Failure> {
    let mut body = Body::begin(plan, &shared.recorder, &shared.storage);
    body.read(&sql_query(plan.select_sql()).get_result(conn)?);
    thread::sleep(plan.pause);
    match plan.mode {
        Mode::Exclusive => {
            let number = body.writes();
            sql_query(plan.update_sql(number)).execute(conn)?;
            body.wrote(number);
        }
        Mode::Shared => body.read_again(&sql_query(plan.select_sql()).get_result(conn)?),
    }
    Ok(())
}
