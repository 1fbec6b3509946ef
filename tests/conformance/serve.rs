//! The actor of a blocking client. Guards and bodies live on its stack: each is a call of [`serve`] within another.

use std::ops::DerefMut;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use advisory_locking::session::{LockSession, SessionError};
use advisory_locking::{AdvisoryLockGuard, AdvisoryLocking, LockError, LockErrorKind};

use crate::actor::{Ask, BODY_VALUE, Command, Ending, Level, Mail, Outcome, Raw};

/// A connection, and what can be done on it without the library.
pub(crate) trait Client: LockSession + Sized {
    fn raw(&mut self, raw: Raw) -> Outcome;

    /// Opens a test framework's transaction, if the client knows of such.
    fn begin_test(&mut self) -> Outcome {
        Outcome::Absent
    }
}

/// Why a call of [`serve`] returns.
pub(crate) enum Exit {
    Release,
    Drop,
    Leave(Ending),
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

/// What a body that is told to panic panics with, so that another panic is not taken for it.
pub(crate) struct BodyPanic;

/// An actor with a connection.
pub(crate) fn connection<C: Client>(conn: &mut C, mail: &Mail) {
    let _quit = serve(conn, mail);
}

fn serve<C: Client>(conn: &mut C, mail: &Mail) -> Exit {
    loop {
        if let Some(exit) = one(conn, mail.next(), mail) {
            return exit;
        }
    }
}

/// Does one command. `Some`: it was the last for the guard, the body or the actor that is served.
pub(crate) fn one<C: Client>(conn: &mut C, command: Command, mail: &Mail) -> Option<Exit> {
    match command {
        Command::Acquire(Ask {
            key,
            options,
            must: true,
        }) => {
            return hold(conn.acquire_advisory_lock(key, options).map(Some), mail);
        }
        Command::Acquire(Ask {
            key,
            options,
            must: false,
        }) => {
            return hold(conn.try_acquire_advisory_lock(key, options), mail);
        }
        Command::With(level, Ask { key, options, must }) => {
            return run(mail, || {
                let body = |conn: &mut C| body(conn, mail);
                match (level, must) {
                    (Level::Session, true) => conn.with_advisory_lock(key, options, body).map(Some),
                    (Level::Session, false) => conn.try_with_advisory_lock(key, options, body),
                    (Level::Transaction, true) => {
                        conn.with_advisory_xact_lock(key, options, body).map(Some)
                    }
                    (Level::Transaction, false) => {
                        conn.try_with_advisory_xact_lock(key, options, body)
                    }
                }
            });
        }
        Command::Release => return Some(Exit::Release),
        Command::DropGuard => return Some(Exit::Drop),
        Command::Leave(ending) => return Some(Exit::Leave(ending)),
        Command::Quit => return Some(Exit::Quit),
        Command::XactAcquire(Ask { key, options, must }) => {
            mail.reply(xact(conn, key, options, must))
        }
        Command::Begin => mail.reply(client(conn.session_begin())),
        Command::Commit => mail.reply(client(conn.session_commit())),
        Command::Rollback => mail.reply(client(conn.session_rollback())),
        Command::BeginTest => mail.reply(conn.begin_test()),
        Command::Excludes => {
            mail.reply(Outcome::Excludes(
                conn.capabilities().provides_mutual_exclusion(),
            ));
        }
        Command::Raw(raw) => mail.reply(conn.raw(raw)),
    }
    None
}

fn xact<C: Client>(
    conn: &mut C,
    key: advisory_locking::LockKey,
    options: advisory_locking::LockOptions,
    must: bool,
) -> Outcome {
    let granted = if must {
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

/// Serves under a guard, if there is one.
pub(crate) fn hold<D>(
    granted: Result<Option<AdvisoryLockGuard<D>>, LockError>,
    mail: &Mail,
) -> Option<Exit>
where
    D: DerefMut<Target: Client>,
{
    let mut guard = match granted {
        Ok(Some(guard)) => guard,
        Ok(None) => {
            mail.reply(Outcome::NotGranted);
            return None;
        }
        Err(error) => {
            mail.reply(Outcome::failed(&error));
            return None;
        }
    };
    mail.reply(Outcome::Granted);
    match serve(&mut *guard, mail) {
        Exit::Release => mail.reply(Outcome::of(guard.release())),
        Exit::Drop => {
            drop(guard);
            mail.reply(Outcome::Done);
        }
        Exit::Quit => return Some(Exit::Quit),
        Exit::Leave(_) => panic!("a body cannot be left from under a guard taken in it"),
    }
    None
}

/// Calls a method with a body.
pub(crate) fn run(
    mail: &Mail,
    call: impl FnOnce() -> Result<Option<i64>, BodyError>,
) -> Option<Exit> {
    let outcome = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(Some(value))) => Outcome::Ran(value),
        Ok(Ok(None)) => Outcome::NotGranted,
        Ok(Err(BodyError::Lock(kind))) => Outcome::Failed(kind),
        Ok(Err(BodyError::Body)) => Outcome::BodyFailed,
        Ok(Err(BodyError::Quit)) => return Some(Exit::Quit),
        Err(payload) if payload.is::<BodyPanic>() => Outcome::Panicked,
        Err(payload) => resume_unwind(payload),
    };
    mail.reply(outcome);
    None
}

/// A body: serves until it is told how to end.
pub(crate) fn body<C: Client>(conn: &mut C, mail: &Mail) -> Result<i64, BodyError> {
    mail.reply(Outcome::Entered);
    match serve(conn, mail) {
        Exit::Leave(Ending::Ok) => Ok(BODY_VALUE),
        Exit::Leave(Ending::Err) => Err(BodyError::Body),
        // Not `panic!`, which would print.
        Exit::Leave(Ending::Panic) => resume_unwind(Box::new(BodyPanic)),
        Exit::Quit => Err(BodyError::Quit),
        Exit::Release | Exit::Drop => panic!("a guard cannot be released from inside a body"),
    }
}
