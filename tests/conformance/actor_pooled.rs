//! The actor of a blocking pool.

use std::time::Instant;

use advisory_locking::session::LockPool;
use advisory_locking::session::LockSession;
use advisory_locking::{LockError, LockErrorKind, PooledAdvisoryLocking};

use crate::actor::{
    AcquireRequest, ActorChannel, CHECKOUT_LIMIT, CHECKOUTS, Command, LockScope, OUTER_LIMIT,
    Outcome,
};
use crate::actor_blocking::{
    Client, Exit, body, call_with_body, hold_guard, roll_back_all, run_command,
};

/// An actor with a pool. Commands go to the pool, except those inside an open transaction.
pub(crate) fn pool<P>(pool: &P, channel: &ActorChannel)
where
    P: LockPool<Session: Client>,
{
    drop(checkout(pool));
    loop {
        let exit = match channel.next() {
            Command::Acquire(AcquireRequest {
                key,
                options,
                fail_if_contended,
            }) => {
                let granted = retry_checkout(|| {
                    if fail_if_contended {
                        PooledAdvisoryLocking::acquire_advisory_lock(pool, &key, options).map(Some)
                    } else {
                        PooledAdvisoryLocking::try_acquire_advisory_lock(pool, &key, options)
                    }
                });
                hold_guard(granted, channel)
            }
            Command::With(
                scope,
                AcquireRequest {
                    key,
                    options,
                    fail_if_contended,
                },
            ) => call_with_body(channel, || {
                let body = |conn: &mut P::Session| body(conn, channel);
                match (scope, fail_if_contended) {
                    (LockScope::Session, true) => {
                        pool.with_advisory_lock(key, options, body).map(Some)
                    }
                    (LockScope::Session, false) => pool.try_with_advisory_lock(key, options, body),
                    (LockScope::Transaction, true) => {
                        pool.with_advisory_xact_lock(key, options, body).map(Some)
                    }
                    (LockScope::Transaction, false) => {
                        pool.try_with_advisory_xact_lock(key, options, body)
                    }
                }
            }),
            Command::Explain(AcquireRequest { key, options, .. }) => {
                let guard = PooledAdvisoryLocking::acquire_advisory_lock(pool, key, options);
                channel.reply(Outcome::explained(guard));
                None
            }
            Command::Report(key) => {
                channel.reply(Outcome::reported(pool.advisory_lock_holders(key)));
                None
            }
            command => checked_out(pool, command, channel),
        };
        if exit.is_some() {
            return;
        }
    }
}

/// Checks the connection out. On a loaded machine that may take longer than the pool's limit.
fn checkout<P: LockPool>(pool: &P) -> P::Connection {
    let began = Instant::now();
    loop {
        match pool.checkout() {
            Ok(conn) => return conn,
            Err(error) => assert!(began.elapsed() < OUTER_LIMIT, "no connection: {error:?}"),
        }
    }
}

/// Repeats a call whose checkout failed. On a loaded machine a checkout may take longer than a
/// short limit.
fn retry_checkout<T>(mut call: impl FnMut() -> Result<T, LockError>) -> Result<T, LockError> {
    let began = Instant::now();
    for _ in 1..CHECKOUTS {
        match call() {
            Err(error)
                if error.kind() == LockErrorKind::Pool && began.elapsed() < CHECKOUT_LIMIT => {}
            result => return result,
        }
    }
    call()
}

/// Keeps a checked-out connection while a transaction is open on it.
fn checked_out<P>(pool: &P, mut command: Command, channel: &ActorChannel) -> Option<Exit>
where
    P: LockPool<Session: Client>,
{
    if matches!(command, Command::Quit) {
        return Some(Exit::Quit);
    }
    let mut conn = checkout(pool);
    loop {
        let exit = run_command(&mut *conn, command, channel);
        if exit.is_some() || !conn.session_transaction_state().is_open_on_server() {
            roll_back_all(&mut *conn);
            return exit;
        }
        command = channel.next();
    }
}
