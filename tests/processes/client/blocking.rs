//! Diesel with r2d2.

use std::thread;
use std::time::Duration;

use advisory_locking::PooledAdvisoryLocking;
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{RunQueryDsl, sql_query};

use super::{CLIENTS, Shared, url};
use crate::history::{Event, Mode, now};
use crate::work::{Body, Failure, How, Plan, key, outcome};

type PgPool = Pool<ConnectionManager<PgConnection>>;

pub(super) fn run(shared: &Shared) {
    let pool = Pool::builder()
        .max_size(CLIENTS)
        .min_idle(Some(0))
        .connection_timeout(Duration::from_secs(2))
        .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
        .build_unchecked(ConnectionManager::new(url()));
    serve_all(shared, CLIENTS, |plan| one(&pool, plan, shared));
}

/// Runs the clients of a process to their end. Each makes one call after the other.
pub(super) fn serve_all(
    shared: &Shared,
    clients: u32,
    one: impl Fn(Plan) -> Result<(), Failure> + Sync,
) {
    let one = &one;
    thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut random = shared.random(client);
                while shared.goes_on() {
                    let plan = Plan::draw(&mut random, shared.recorder.next_call());
                    let outcome = outcome(one(plan));
                    let event = Event::Ended { outcome, at: now() };
                    shared.recorder.write(plan.call, event);
                }
            });
        }
    });
}

fn one(pool: &PgPool, plan: Plan, shared: &Shared) -> Result<(), Failure> {
    let body = |conn: &mut PgConnection| body(conn, plan, shared);
    match plan.how {
        How::Guard => {
            let mut guard = pool.acquire_advisory_lock(key(plan.key), plan.options())?;
            body(&mut guard)?;
            Ok(guard.release()?)
        }
        How::With => pool.with_advisory_lock(key(plan.key), plan.options(), body),
        How::Transaction => pool.with_advisory_xact_lock(key(plan.key), plan.options(), body),
    }
}

fn body(conn: &mut PgConnection, plan: Plan, shared: &Shared) -> Result<(), Failure> {
    let mut body = Body::begin(plan, &shared.recorder, &shared.storage);
    body.read(&sql_query(plan.reading()).get_result(conn)?);
    thread::sleep(plan.pause);
    match plan.mode {
        Mode::Exclusive => {
            let number = body.writes();
            sql_query(plan.writing(number)).execute(conn)?;
            body.wrote(number);
        }
        Mode::Shared => body.read_again(&sql_query(plan.reading()).get_result(conn)?),
    }
    Ok(())
}
