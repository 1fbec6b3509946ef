//! An actor: a thread with one connection (or one pool) that does what it is told, command by command.
//!
//! A guard borrows its connection, so an actor keeps its guards on its call stack: see [`serve`](crate::serve).

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use advisory_locking::{LockError, LockErrorKind, LockKey, LockMode, LockOptions};

/// Far longer than anything takes: only a test that hangs meets it.
pub(crate) const OUTER_LIMIT: Duration = Duration::from_secs(20);

/// What a body returns when it ends well.
pub(crate) const BODY_VALUE: i64 = 7;

/// A lock that is asked for: `must` calls the method whose refusal is an error, otherwise the `try_` method.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) key: LockKey,
    pub(crate) options: LockOptions,
    pub(crate) must: bool,
}

/// Which of the two kinds of lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    Session,
    Transaction,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    Ok,
    Err,
    Panic,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Takes a guard, which stays until [`Release`](Self::Release) or [`DropGuard`](Self::DropGuard).
    Acquire(Ask),
    Release,
    DropGuard,
    /// Takes a transaction-level lock in the open transaction.
    XactAcquire(Ask),
    /// Runs a body under the lock. In the body, further commands are done until [`Leave`](Self::Leave).
    With(Level, Ask),
    Leave(Ending),
    Begin,
    Commit,
    Rollback,
    /// Opens a test framework's transaction.
    BeginTest,
    Excludes,
    Raw(Raw),
    Quit,
}

/// What is done without the library, in SQL or what stands for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw {
    Pid,
    /// Takes a session-level lock without waiting.
    TryLock(advisory_locking::RawLockKey, LockMode),
    Unlock(advisory_locking::RawLockKey, LockMode),
    UnlockAll,
    /// Begins a transaction that the client does not know of.
    Begin,
    Commit,
    Rollback,
    Savepoint(&'static str),
    RollbackTo(&'static str),
    /// A statement that fails.
    Fail,
    /// Any other statement.
    #[allow(
        dead_code,
        reason = "the conformance suite is also played where there is no SQL"
    )]
    Run(&'static str),
    /// Inserts a row.
    Write,
    /// Counts this session's rows.
    Count,
    /// Sets `lock_timeout` and `statement_timeout` for the session.
    SetSettings,
    /// The two settings, as one number.
    Settings,
}

/// What came of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Granted,
    /// A `try_` method answered that the lock could not be had.
    NotGranted,
    /// A body runs.
    Entered,
    /// A body ended well, and so did the lock.
    Ran(i64),
    /// The caller was given the body's own error.
    BodyFailed,
    Panicked,
    Failed(LockErrorKind),
    /// The client failed, not the library.
    ClientFailed,
    Answered(Option<i64>),
    Excludes(bool),
    /// The client has no such thing.
    Absent,
}

impl Outcome {
    pub(crate) fn of(result: Result<(), LockError>) -> Self {
        result.map_or_else(|error| Self::failed(&error), |()| Self::Done)
    }

    /// Prints what it is; a case that did not expect it shows that.
    #[allow(clippy::print_stderr, reason = "shown with a failed test only")]
    pub(crate) fn failed(error: &LockError) -> Self {
        eprintln!("{error:?}");
        Self::Failed(error.kind())
    }
}

/// The actor's end of its letter box.
#[derive(Debug)]
pub(crate) struct Mail {
    /// Locked so that an async actor's futures may be `Send`.
    pub(crate) commands: Mutex<Receiver<Command>>,
    pub(crate) outcomes: Sender<Outcome>,
}

impl Mail {
    /// The next command. An actor whose test is gone quits.
    pub(crate) fn next(&self) -> Command {
        let commands = self.commands.lock().expect("one actor reads its mail");
        commands.recv().unwrap_or(Command::Quit)
    }

    pub(crate) fn reply(&self, outcome: Outcome) {
        // The test may have failed and gone.
        let _ = self.outcomes.send(outcome);
    }
}

/// The test's handle of an actor.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) commands: Sender<Command>,
    pub(crate) outcomes: Receiver<Outcome>,
}

impl Actor {
    /// Sends a command and does not wait for what comes of it.
    pub(crate) fn start(&self, command: Command) {
        self.commands.send(command).expect("the actor is alive");
    }

    /// What came of the command that was started.
    pub(crate) fn finish(&self) -> Outcome {
        self.outcomes
            .recv_timeout(OUTER_LIMIT)
            .expect("the actor answers within the outer limit")
    }

    /// Whether the command that was started has come to something.
    pub(crate) fn finished(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }

    pub(crate) fn call(&self, command: Command) -> Outcome {
        self.start(command);
        self.finish()
    }

    pub(crate) fn acquire(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::Acquire(ask(key, options, true)))
    }

    pub(crate) fn try_acquire(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::Acquire(ask(key, options, false)))
    }

    pub(crate) fn start_acquire(&self, key: &LockKey, options: LockOptions) {
        self.start(Command::Acquire(ask(key, options, true)));
    }

    pub(crate) fn xact(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::XactAcquire(ask(key, options, true)))
    }

    pub(crate) fn try_xact(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::XactAcquire(ask(key, options, false)))
    }

    pub(crate) fn with(&self, level: Level, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::With(level, ask(key, options, true)))
    }

    pub(crate) fn try_with(&self, level: Level, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::With(level, ask(key, options, false)))
    }

    pub(crate) fn leave(&self, ending: Ending) -> Outcome {
        self.call(Command::Leave(ending))
    }

    pub(crate) fn release(&self) -> Outcome {
        self.call(Command::Release)
    }

    pub(crate) fn drop_guard(&self) -> Outcome {
        self.call(Command::DropGuard)
    }

    pub(crate) fn begin(&self) -> Outcome {
        self.call(Command::Begin)
    }

    pub(crate) fn commit(&self) -> Outcome {
        self.call(Command::Commit)
    }

    pub(crate) fn rollback(&self) -> Outcome {
        self.call(Command::Rollback)
    }

    pub(crate) fn raw(&self, raw: Raw) -> Outcome {
        self.call(Command::Raw(raw))
    }

    /// The number that something without the library answers.
    pub(crate) fn number(&self, raw: Raw) -> i64 {
        match self.raw(raw) {
            Outcome::Answered(Some(number)) => number,
            other => panic!("{raw:?} answered {other:?}"),
        }
    }
}

pub(crate) fn ask(key: &LockKey, options: LockOptions, must: bool) -> Ask {
    Ask {
        key: key.clone(),
        options,
        must,
    }
}
