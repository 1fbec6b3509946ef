//! An actor: a thread with one connection, or one pool, that executes the commands of a case.
//!
//! A guard borrows its connection, so an actor keeps its guards on its call stack: see
//! [`actor_blocking`](crate::actor_blocking).

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use advisory_locking::{LockError, LockErrorKind, LockKey, LockMode, LockOptions, LockReport};

/// Limit of every wait of a case. Only a case that hangs reaches it.
pub(crate) const OUTER_LIMIT: Duration = Duration::from_secs(30);

/// Greatest number of checkouts for one call of a pool. The shortest checkout takes up to 100 ms.
#[allow(dead_code, reason = "pools are features")]
pub(crate) const CHECKOUTS: u32 = 80;

/// Time of a call after which no further checkout begins.
#[allow(dead_code, reason = "pools are features")]
pub(crate) const CHECKOUT_LIMIT: Duration = Duration::from_secs(7);

/// Return value of a body that succeeds.
pub(crate) const BODY_VALUE: i64 = 7;

/// A request for a lock. With `fail_if_contended` the actor calls the method that returns an error
/// for a contended lock, otherwise the `try_` method.
#[derive(Clone, Debug)]
pub(crate) struct AcquireRequest {
    pub(crate) key: LockKey,
    pub(crate) options: LockOptions,
    pub(crate) fail_if_contended: bool,
}

/// Scope of a lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LockScope {
    Session,
    Transaction,
}

/// End of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyEnd {
    Ok,
    Err,
    Panic,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Acquires a guard and keeps it until [`Release`](Self::Release) or
    /// [`DropGuard`](Self::DropGuard).
    Acquire(AcquireRequest),
    /// Reads the process id of the guard.
    GuardPid,
    Release,
    DropGuard,
    /// Acquires a transaction-level lock in the open transaction.
    XactAcquire(AcquireRequest),
    /// Runs a body under the lock. The body executes further commands until
    /// [`EndBody`](Self::EndBody).
    With(LockScope, AcquireRequest),
    EndBody(BodyEnd),
    Begin,
    Commit,
    Rollback,
    /// Opens a test framework's transaction.
    BeginTest,
    Excludes,
    /// Reads the report of a key.
    Report(LockKey),
    /// Requests a lock that is contended, and reads the holders in the error.
    Explain(AcquireRequest),
    Sql(SqlCommand),
    Quit,
}

/// A command without the library, in SQL or in the model's own calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SqlCommand {
    Pid,
    /// Tries to acquire a session-level lock.
    TryLock(advisory_locking::RawLockKey, LockMode),
    Unlock(advisory_locking::RawLockKey, LockMode),
    UnlockAll,
    /// Releases all session-level locks and deallocates all prepared statements.
    DiscardAll,
    /// Deallocates all prepared statements.
    DeallocateAll,
    /// Begins a transaction that the client library does not see.
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
        reason = "the conformance suite also runs on the model, which has no SQL"
    )]
    Run(&'static str),
    /// Inserts a row, or changes a setting that a rollback restores.
    Write,
    /// Counts this session's writes.
    Count,
    /// Sets `lock_timeout` and `statement_timeout` for the session.
    SetSettings,
    /// The two settings, as one number.
    Settings,
}

/// Outcome of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Granted,
    /// A `try_` method returned that the lock is contended.
    NotGranted,
    /// The body has started.
    BodyStarted,
    /// The body succeeded, and so did the release.
    BodySucceeded(i64),
    /// The call returned the body's own error.
    BodyFailed,
    Panicked,
    Failed(LockErrorKind),
    /// The client library returned an error.
    ClientFailed,
    Answered(Option<i64>),
    Excludes(bool),
    /// The process ids of the holders and of the waiters of a key.
    Reported(Vec<Option<i32>>, Vec<Option<i32>>),
    /// The client does not support the command.
    Unsupported,
}

impl Outcome {
    pub(crate) fn of(result: Result<(), LockError>) -> Self {
        result.map_or_else(|error| Self::failed(&error), |()| Self::Done)
    }

    pub(crate) fn reported(report: Result<LockReport, LockError>) -> Self {
        report.map_or_else(
            |error| Self::failed(&error),
            |report| {
                let holders = report.holders.iter().map(|holder| holder.session.pid);
                let waiters = report.waiters.iter().map(|waiter| waiter.session.pid);
                Self::Reported(holders.collect(), waiters.collect())
            },
        )
    }

    pub(crate) fn explained<T>(result: Result<T, LockError>) -> Self {
        result.map_or_else(
            |error| {
                let holders = error.holders().iter().map(|holder| holder.session.pid);
                Self::Reported(holders.collect(), Vec::new())
            },
            |_| Self::Granted,
        )
    }

    /// Prints the error, which a failed case shows.
    #[allow(clippy::print_stderr, reason = "shown with a failed test only")]
    pub(crate) fn failed(error: &LockError) -> Self {
        eprintln!("{error:?}");
        Self::Failed(error.kind())
    }
}

/// The actor's end of its two channels.
#[derive(Debug)]
pub(crate) struct ActorChannel {
    /// Locked so that an async actor's futures may be `Send`.
    pub(crate) commands: Mutex<Receiver<Command>>,
    pub(crate) outcomes: Sender<Outcome>,
}

impl ActorChannel {
    /// Returns the next command. An actor whose test has ended quits.
    pub(crate) fn next(&self) -> Command {
        let commands = self.commands.lock().expect("only the actor locks it");
        commands.recv().unwrap_or(Command::Quit)
    }

    pub(crate) fn reply(&self, outcome: Outcome) {
        // The test may have failed, which drops the receiver.
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
    /// Sends a command without waiting for its outcome.
    pub(crate) fn start(&self, command: Command) {
        self.commands.send(command).expect("the actor is alive");
    }

    /// Waits for the outcome of the started command.
    pub(crate) fn finish(&self) -> Outcome {
        self.outcomes
            .recv_timeout(OUTER_LIMIT)
            .expect("the actor answers within the outer limit")
    }

    /// Returns the outcome of the started command if it has ended.
    pub(crate) fn finished(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }

    pub(crate) fn call(&self, command: Command) -> Outcome {
        self.start(command);
        self.finish()
    }

    pub(crate) fn acquire(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::Acquire(request(key, options, true)))
    }

    pub(crate) fn try_acquire(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::Acquire(request(key, options, false)))
    }

    pub(crate) fn start_acquire(&self, key: &LockKey, options: LockOptions) {
        self.start(Command::Acquire(request(key, options, true)));
    }

    pub(crate) fn xact(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::XactAcquire(request(key, options, true)))
    }

    pub(crate) fn try_xact(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::XactAcquire(request(key, options, false)))
    }

    pub(crate) fn with(&self, scope: LockScope, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::With(scope, request(key, options, true)))
    }

    pub(crate) fn try_with(
        &self,
        scope: LockScope,
        key: &LockKey,
        options: LockOptions,
    ) -> Outcome {
        self.call(Command::With(scope, request(key, options, false)))
    }

    /// Starts a body under a lock, which must be free.
    #[track_caller]
    pub(crate) fn enter(&self, scope: LockScope, key: &LockKey) {
        let entered = self.with(scope, key, LockOptions::no_wait());
        assert_eq!(entered, Outcome::BodyStarted);
    }

    /// Ends a body, whose release must succeed.
    #[track_caller]
    pub(crate) fn succeed(&self) {
        let ended = self.end_body(BodyEnd::Ok);
        assert_eq!(ended, Outcome::BodySucceeded(BODY_VALUE));
    }

    pub(crate) fn end_body(&self, ending: BodyEnd) -> Outcome {
        self.call(Command::EndBody(ending))
    }

    pub(crate) fn guard_pid(&self) -> Outcome {
        self.call(Command::GuardPid)
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

    pub(crate) fn explain(&self, key: &LockKey, options: LockOptions) -> Outcome {
        self.call(Command::Explain(request(key, options, true)))
    }

    pub(crate) fn report(&self, key: &LockKey) -> Outcome {
        self.call(Command::Report(key.clone()))
    }

    pub(crate) fn run_sql(&self, command: SqlCommand) -> Outcome {
        self.call(Command::Sql(command))
    }

    /// Returns the number that a command without the library answers.
    pub(crate) fn number(&self, command: SqlCommand) -> i64 {
        match self.run_sql(command) {
            Outcome::Answered(Some(number)) => number,
            other => panic!("{command:?} answered {other:?}"),
        }
    }
}

pub(crate) fn request(
    key: &LockKey,
    options: LockOptions,
    fail_if_contended: bool,
) -> AcquireRequest {
    AcquireRequest {
        key: key.clone(),
        options,
        fail_if_contended,
    }
}
