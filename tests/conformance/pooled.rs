//! The actor of a blocking pool.

use advisory_locking::PooledAdvisoryLocking;
use advisory_locking::session::LockPool;
use advisory_locking::session::LockSession;

use crate::actor::{Ask, Command, Level, Mail};
use crate::serve::{Client, Exit, body, hold, one, run};

/// An actor with a pool: a command that needs no transaction goes to the pool, and so does each that begins one.
pub(crate) fn pool<P>(pool: &P, mail: &Mail)
where
    P: LockPool<Session: Client>,
{
    loop {
        let exit = match mail.next() {
            Command::Acquire(Ask {
                key,
                options,
                must: true,
            }) => hold(
                PooledAdvisoryLocking::acquire_advisory_lock(pool, key, options).map(Some),
                mail,
            ),
            Command::Acquire(Ask {
                key,
                options,
                must: false,
            }) => hold(
                PooledAdvisoryLocking::try_acquire_advisory_lock(pool, key, options),
                mail,
            ),
            Command::With(level, Ask { key, options, must }) => run(mail, || {
                let body = |conn: &mut P::Session| body(conn, mail);
                match (level, must) {
                    (Level::Session, true) => pool.with_advisory_lock(key, options, body).map(Some),
                    (Level::Session, false) => pool.try_with_advisory_lock(key, options, body),
                    (Level::Transaction, true) => {
                        pool.with_advisory_xact_lock(key, options, body).map(Some)
                    }
                    (Level::Transaction, false) => {
                        pool.try_with_advisory_xact_lock(key, options, body)
                    }
                }
            }),
            command => checked_out(pool, command, mail),
        };
        if exit.is_some() {
            return;
        }
    }
}

/// Keeps one of the pool's connections while a transaction is open on it.
fn checked_out<P>(pool: &P, mut command: Command, mail: &Mail) -> Option<Exit>
where
    P: LockPool<Session: Client>,
{
    if matches!(command, Command::Quit) {
        return Some(Exit::Quit);
    }
    let mut conn = pool.checkout().expect("the pool has a connection");
    loop {
        let exit = one(&mut *conn, command, mail);
        if exit.is_some() || !conn.session_transaction_state().is_open_on_server() {
            return exit;
        }
        command = mail.next();
    }
}
