//! The actor of a blocking client. Guards and bodies live on its stack: each is a nested call of
//! [`serve`].

use std::ops::DerefMut;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use advisory_locking::session::{LockSession, SessionError};
use advisory_locking::{AdvisoryLockGuard, AdvisoryLocking, LockError, LockErrorKind};

use crate::actor::{
    AcquireRequest, ActorChannel, BODY_VALUE, BodyEnd, Command, LockScope, Outcome, SqlCommand,
};

/// A connection that also executes commands without the library.
pub(crate) trait Client: LockSession + Sized {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome;

    /// Opens a test transaction if the client library has them.
    fn begin_test(&mut self) -> Outcome {
        Outcome::Unsupported
    }
}

/// Reason for the return of [`serve`].
pub(crate) enum Exit {
    /// The process id of the guard is read; the guard stays.
    GuardPid,
    Release,
    Drop,
    EndBody(BodyEnd),
    Quit,
}

pub(crate) enum BodyError {
    Lock(LockErrorKind),
    Body,
    Quit,
}

impl From<LockError> for BodyError {
    fn from(error: LockError) -> Self {
        Self::Lock(error.kind())
    }
}

/// Payload of a commanded panic, to tell it from any other panic.
pub(crate) struct BodyPanic;

/// An actor with a connection.
pub(crate) fn connection<C: Client>(conn: &mut C, channel: &ActorChannel) {
    let _quit = serve(conn, channel);
    roll_back_all(conn);
}

/// Ends the transactions that a case has left open. The adapter of the crate postgres keeps their
/// number by the address of the client, where the next actor may have its own.
pub(crate) fn roll_back_all<C: LockSession>(conn: &mut C) {
    while conn.session_transaction_state().is_open() {
        if conn.session_rollback().is_err() {
            return;
        }
    }
}

fn serve<C: Client>(conn: &mut C, channel: &ActorChannel) -> Exit {
    loop {
        if let Some(exit) = run_command(conn, channel.next(), channel) {
            return exit;
        }
    }
}

/// Executes one command. Returns `Some` if it ends the guard, the body or the actor.
pub(crate) fn run_command<C: Client>(
    conn: &mut C,
    command: Command,
    channel: &ActorChannel,
) -> Option<Exit> {
    match command {
        Command::Acquire(AcquireRequest {
            key,
            options,
            fail_if_contended,
        }) => {
            let granted = if fail_if_contended {
                conn.acquire_advisory_lock(key, options).map(Some)
            } else {
                conn.try_acquire_advisory_lock(key, options)
            };
            return hold_guard(granted, channel);
        }
        Command::With(
            scope,
            AcquireRequest {
                key,
                options,
                fail_if_contended,
            },
        ) => {
            return call_with_body(channel, || {
                let body = |conn: &mut C| body(conn, channel);
                match (scope, fail_if_contended) {
                    (LockScope::Session, true) => {
                        conn.with_advisory_lock(key, options, body).map(Some)
                    }
                    (LockScope::Session, false) => conn.try_with_advisory_lock(key, options, body),
                    (LockScope::Transaction, true) => {
                        conn.with_advisory_xact_lock(key, options, body).map(Some)
                    }
                    (LockScope::Transaction, false) => {
                        conn.try_with_advisory_xact_lock(key, options, body)
                    }
                }
            });
        }
        Command::GuardPid => return Some(Exit::GuardPid),
        Command::Release => return Some(Exit::Release),
        Command::DropGuard => return Some(Exit::Drop),
        Command::EndBody(ending) => return Some(Exit::EndBody(ending)),
        Command::Quit => return Some(Exit::Quit),
        Command::XactAcquire(AcquireRequest {
            key,
            options,
            fail_if_contended,
        }) => channel.reply(xact(conn, key, options, fail_if_contended)),
        Command::Begin => channel.reply(client(conn.session_begin())),
        Command::Commit => channel.reply(client(conn.session_commit(None))),
        Command::Rollback => channel.reply(client(conn.session_rollback())),
        Command::BeginTest => channel.reply(conn.begin_test()),
        Command::Excludes => {
            channel.reply(Outcome::Excludes(
                conn.capabilities().provides_mutual_exclusion(),
            ));
        }
        Command::Explain(AcquireRequest { key, options, .. }) => {
            channel.reply(Outcome::explained(conn.acquire_advisory_lock(key, options)));
        }
        Command::Report(key) => {
            channel.reply(Outcome::reported(conn.advisory_lock_holders(key)));
        }
        Command::Sql(command) => channel.reply(conn.run_sql(command)),
    }
    None
}

fn xact<C: Client>(
    conn: &mut C,
    key: advisory_locking::LockKey,
    options: advisory_locking::LockOptions,
    fail_if_contended: bool,
) -> Outcome {
    let granted = if fail_if_contended {
        conn.acquire_advisory_xact_lock(key, options).map(|()| true)
    } else {
        conn.try_acquire_advisory_xact_lock(key, options)
    };
    match granted {
        Ok(true) => Outcome::Granted,
        Ok(false) => Outcome::NotGranted,
        Err(error) => Outcome::failed(&error),
    }
}

pub(crate) fn client(result: Result<(), SessionError>) -> Outcome {
    result.map_or(Outcome::ClientFailed, |()| Outcome::Done)
}

/// Serves commands under a guard if the lock was granted.
pub(crate) fn hold_guard<D>(
    granted: Result<Option<AdvisoryLockGuard<D>>, LockError>,
    channel: &ActorChannel,
) -> Option<Exit>
where
    D: DerefMut<Target: Client>,
{
    let mut guard = match granted {
        Ok(Some(guard)) => guard,
        Ok(None) => {
            channel.reply(Outcome::NotGranted);
            return None;
        }
        Err(error) => {
            channel.reply(Outcome::failed(&error));
            return None;
        }
    };
    channel.reply(Outcome::Granted);
    loop {
        match serve(&mut *guard, channel) {
            Exit::GuardPid => channel.reply(Outcome::Answered(guard.session_pid().map(i64::from))),
            Exit::Release => {
                channel.reply(Outcome::of(guard.release()));
                return None;
            }
            Exit::Drop => {
                drop(guard);
                channel.reply(Outcome::Done);
                return None;
            }
            Exit::Quit => return Some(Exit::Quit),
            Exit::EndBody(_) => panic!("the guard was acquired in the body and ends before it"),
        }
    }
}

/// Calls a method that has a body.
pub(crate) fn call_with_body(
    channel: &ActorChannel,
    call: impl FnOnce() -> Result<Option<i64>, BodyError>,
) -> Option<Exit> {
    let outcome = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(Some(value))) => Outcome::BodySucceeded(value),
        Ok(Ok(None)) => Outcome::NotGranted,
        Ok(Err(BodyError::Lock(kind))) => Outcome::Failed(kind),
        Ok(Err(BodyError::Body)) => Outcome::BodyFailed,
        Ok(Err(BodyError::Quit)) => return Some(Exit::Quit),
        Err(payload) if payload.is::<BodyPanic>() => Outcome::Panicked,
        Err(payload) => resume_unwind(payload),
    };
    channel.reply(outcome);
    None
}

/// A body: serves commands until [`Command::EndBody`].
pub(crate) fn body<C: Client>(conn: &mut C, channel: &ActorChannel) -> Result<i64, BodyError> {
    channel.reply(Outcome::BodyStarted);
    match serve(conn, channel) {
        Exit::EndBody(BodyEnd::Ok) => Ok(BODY_VALUE),
        Exit::EndBody(BodyEnd::Err) => Err(BodyError::Body),
        // `panic!` would print.
        Exit::EndBody(BodyEnd::Panic) => resume_unwind(Box::new(BodyPanic)),
        Exit::Quit => Err(BodyError::Quit),
        Exit::GuardPid | Exit::Release | Exit::Drop => {
            panic!("the guard was acquired outside the body")
        }
    }
}
