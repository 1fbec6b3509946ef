//! Acquisition of a lock.
//!
//! # Implementation details
//!
//! The machine first makes one attempt, a single *try* statement. If the lock is contended and the
//! options wait, it polls with a [`Backoff`], or sends one wait to the server. After an error it
//! cleans up before it reports.
//!
//! ```text
//! Start ── Trying ──┬── granted
//!           │       ├── contended ── Sleeping (poll) ── Trying
//!           │       └── contended ── Waiting (block) ── granted
//!           └─ error ── RevealingError ── CheckingForLeak ── failed, or Terminating
//!                   (in a transaction: EndingSnapshot ── Sleeping)
//! Waiting ── error ── RollingBackWait (in a transaction) ── ReleasingIfHeld, or CheckingForLeak
//! ```
//!
//! PostgreSQL can report a timeout (55P03, `lock_not_available`), a cancellation (57014) or a
//! deadlock (40P01) although it granted the session-level lock. The error may arrive after the
//! grant and before the statement ends. Therefore the clean-up is necessary. A rollback to a
//! savepoint releases transaction-level locks, but [not session-level
//! locks](https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS).
//!
//! Each try returns the [`ServerSigns`], so a refused server is reported before a wait. A wait
//! follows a try on the same session.
//!
//! * A session may acquire a lock several times; each is a *level*, and each needs a release. After
//!   a timeout or a deadlock, one level is released if `pg_locks` shows the lock. A wait proves
//!   that the session did not hold the lock in this mode before, so the level belongs to this call.
//! * After any other error, `pg_locks` cannot distinguish this call's level from an outer level of
//!   the application. If it shows the lock, the session is terminated.

mod clean_up;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::{Action, Event, Grant, Machine, SessionSnapshot};
use crate::backends::{postgres, sqlite};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope, WaitStrategy};
use crate::session::{
    Backend, LockReply, Script, ServerSigns, SessionError, Statement, StatementKind,
    TransactionState,
};

/// Machine that acquires a lock.
#[derive(Debug)]
pub(crate) struct Acquire {
    key: LockKey,
    options: LockOptions,
    scope: LockScope,
    /// The server sees a transaction of the caller around the call.
    in_transaction: bool,
    depth: u32,
    max_server_wait: Option<Duration>,
    backoff: Backoff,
    /// Time of the first try.
    began: Option<Instant>,
    /// Time from the first try to the event that is handled.
    waited: Duration,
    /// Process id of the session that replied to the first try. A reply with another process id
    /// shows that a pooler changed the session.
    pid: Option<i32>,
    /// Start time of the transaction of the last try.
    transaction_began: Option<i64>,
    /// No transaction is open in a pause: there is none, or the caller ends it before the pause and
    /// begins another one after it.
    pub(super) pauses_outside_transaction: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The outcome is known without a server.
    Decided(Result<Grant, LockError>),
    Start,
    Trying,
    /// A pause follows, in a transaction.
    EndingSnapshot(Duration),
    Sleeping,
    Waiting,
    RollingBackWait(LockError),
    ReleasingIfHeld(LockError),
    RevealingError(LockError),
    CheckingForLeak(LockError),
    Terminating(LockError),
    Finished,
}

type NextAction = Action<Result<Grant, LockError>>;

impl Acquire {
    pub(crate) fn new(
        key: LockKey,
        options: &LockOptions,
        scope: LockScope,
        snapshot: SessionSnapshot,
    ) -> Self {
        let transaction = snapshot.transaction;
        let state = match Self::decide(&key, options, scope, &snapshot) {
            Ok(None) => State::Start,
            Ok(Some(grant)) => State::Decided(Ok(grant)),
            Err(error) => State::Decided(Err(error)),
        };
        Self {
            options: *options,
            scope,
            in_transaction: transaction.is_open_on_server(),
            depth: transaction.depth(),
            max_server_wait: snapshot.max_server_wait,
            backoff: Backoff::new(options.max_interval(), fastrand::Rng::new()),
            began: None,
            waited: Duration::ZERO,
            pid: None,
            transaction_began: None,
            pauses_outside_transaction: !transaction.is_open_on_server(),
            state,
            key,
        }
    }

    /// Decides what does not need a server: invalid options, and backends without locks.
    fn decide(
        key: &LockKey,
        options: &LockOptions,
        scope: LockScope,
        snapshot: &SessionSnapshot,
    ) -> Result<Option<Grant>, LockError> {
        Self::check(key, options, scope, snapshot.transaction)?;
        // After the checks: a call that is refused must use up no warning.
        if !snapshot.provides_exclusion {
            sqlite::apply_missing_lock_policy(key, options.on_missing_lock)?;
        }
        Ok(match snapshot.backend {
            Backend::Postgres => None,
            Backend::Sqlite => Some(Grant {
                key: key.clone(),
                mode: options.mode,
                pid: None,
                transaction_began: None,
                depth: snapshot.transaction.depth(),
                record: None,
                #[cfg(feature = "testing")]
                attachment: None,
            }),
        })
    }

    /// Rejects calls that are invalid on every backend, so that tests on SQLite find the mistake.
    fn check(
        key: &LockKey,
        options: &LockOptions,
        scope: LockScope,
        transaction: TransactionState,
    ) -> Result<(), LockError> {
        let error = |kind| LockError::new(kind).with_key(key);
        options.validate(key, scope)?;
        if transaction.is_broken() {
            return Err(error(LockErrorKind::Database)
                .with_context("the client marked this connection as broken"));
        }
        match scope {
            LockScope::Session if transaction.is_open() && !options.in_transaction => {
                Err(error(LockErrorKind::InTransaction).with_context(
                    "a session-level lock would be released before the commit: use \
                     with_advisory_xact_lock, or set LockOptions::allow_in_transaction",
                ))
            }
            LockScope::Transaction if !transaction.is_open() => {
                Err(error(LockErrorKind::NotInTransaction))
            }
            LockScope::Session | LockScope::Transaction => Ok(()),
        }
    }

    /// Returns the rest of the limit; `None` without a limit.
    fn remaining(&self) -> Option<Duration> {
        self.options.remaining(self.waited)
    }

    fn query(&self, kind: StatementKind) -> NextAction {
        Action::Query(Statement::new(kind, &self.key, self.options.mode))
    }

    fn try_once(&mut self) -> NextAction {
        self.state = State::Trying;
        if self.scope == LockScope::Transaction && self.pauses_outside_transaction {
            // Behind a transaction pooler, this transaction may run in another session than the
            // last one.
            self.pid = None;
        }
        let refuses = ServerSigns::ALL.without(self.options.accepted_signs);
        self.query(StatementKind::TryAcquire {
            scope: self.scope,
            refuses,
        })
    }

    fn wait_on_server(&mut self, remaining: Option<Duration>) -> NextAction {
        self.state = State::Waiting;
        // A shorter limit of the session needs no record here: its timeout finds time left in the
        // limit of the call, and `on_wait_cleaned_up` waits again.
        let limit = [remaining, self.max_server_wait]
            .into_iter()
            .flatten()
            .min();
        Action::Script(Script::Wait {
            key: self.key.raw(),
            mode: self.options.mode,
            scope: self.scope,
            in_transaction: self.in_transaction,
            limit_ms: Script::limit_ms(limit),
        })
    }

    fn on_try_reply(&mut self, row: LockReply) -> NextAction {
        // Before the answer is read: it comes from a session that later statements may not reach.
        if self.pid.is_some_and(|pid| pid != row.pid) {
            return self.on_session_changed(row);
        }
        self.pid = Some(row.pid);
        // The statement acquired nothing, so there is no clean-up.
        if let Some((kind, context)) = row.server_signs.error() {
            return self.fail(self.error(kind).with_context(context));
        }
        // The release compares this time, so it must be that of the try which is granted.
        self.transaction_began = Some(row.transaction_began);
        match row.answer {
            Some(true) => self.granted(),
            Some(false) => self.on_contended(),
            // The lock functions are strict, so NULL means that no key arrived.
            None => {
                let error = self.error(LockErrorKind::Database);
                self.clean_up_after_try(error.with_context("the lock function returned NULL"))
            }
        }
    }

    /// Two sessions replied to two tries. A grant by the second session is released there.
    fn on_session_changed(&mut self, row: LockReply) -> NextAction {
        let error = self.error(LockErrorKind::SessionChanged);
        if row.answer == Some(true) {
            self.release_if_held(Some(row.pid), error)
        } else {
            self.fail(error)
        }
    }

    fn granted(&mut self) -> NextAction {
        self.state = State::Finished;
        Action::Done(Ok(Grant {
            key: self.key.clone(),
            mode: self.options.mode,
            pid: self.pid,
            // Inside a transaction that the client knows of, a session-level lock may be released.
            // So its release compares no transaction start.
            transaction_began: self
                .transaction_began
                .filter(|_| self.scope == LockScope::Transaction || !self.in_transaction),
            depth: self.depth,
            record: None,
            #[cfg(feature = "testing")]
            attachment: None,
        }))
    }

    fn on_contended(&mut self) -> NextAction {
        let remaining = self.remaining();
        if remaining == Some(Duration::ZERO) {
            return self.fail(self.error(self.options.contended_kind()));
        }
        match self.options.wait_strategy() {
            WaitStrategy::Block => self.wait_on_server(remaining),
            WaitStrategy::Poll => {
                let pause = self.backoff.next();
                // The last pause ends at the limit, so one more try follows at that time.
                let pause = remaining.map_or(pause, |remaining| pause.min(remaining));
                if self.pauses_outside_transaction {
                    self.sleep(pause)
                } else {
                    self.state = State::EndingSnapshot(pause);
                    Action::Script(Script::EndSnapshot)
                }
            }
        }
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_key(&self.key)
    }

    /// Returns the error of a failed statement, with the likely cause if its SQLSTATE shows one.
    fn error_of(&self, kind: LockErrorKind, source: SessionError) -> LockError {
        let mut error = self.error(kind);
        if let Some(hint) = postgres::hint(source.code()) {
            error = error.with_context(hint);
        }
        error.with_source(source.into_source())
    }

    /// Returns the error of a limit that has passed. The time that passed before this request is
    /// part of the time that the call waited.
    fn timed_out(&self) -> LockError {
        let waited = self.options.elapsed.saturating_add(self.waited);
        self.error(LockErrorKind::TimedOut)
            .with_wait(self.options.limit(), waited)
    }

    fn sleep(&mut self, pause: Duration) -> NextAction {
        self.state = State::Sleeping;
        Action::Sleep(pause)
    }
}

impl Machine for Acquire {
    type Output = Result<Grant, LockError>;

    fn session_pid(&self) -> Option<i32> {
        self.pid
    }

    fn handle(&mut self, event: Event, now: Instant) -> NextAction {
        self.waited = now.saturating_duration_since(*self.began.get_or_insert(now));
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Decided(outcome) => Action::Done(outcome),
            State::Start | State::Sleeping => self.try_once(),
            State::EndingSnapshot(pause) => match event.ran() {
                Ok(()) => self.sleep(pause),
                Err(error) => self.on_try_failed(error),
            },
            State::Trying => match event.row() {
                Ok(row) => self.on_try_reply(row),
                Err(error) => self.on_try_failed(error),
            },
            State::Waiting => match event.ran() {
                Ok(()) => self.granted(),
                Err(error) => self.on_wait_failed(error),
            },
            State::RollingBackWait(error) => match event.ran() {
                Ok(()) => self.clean_up_after_wait(error),
                Err(source) => self.terminate_after(
                    source,
                    "the wait could not be rolled back, so the session was terminated",
                ),
            },
            State::ReleasingIfHeld(error) => self.on_released_if_held(event.row(), error),
            State::RevealingError(error) => match event.ran() {
                // The statement succeeds now, so its SQLSTATE stays unknown.
                Ok(()) => self.check_for_leak(error.with_context(
                    "the same statement then succeeded unprepared: was it cancelled, or is there a \
                     transaction pooler without prepared statements?",
                )),
                Err(revealed) if revealed.is_disconnected() => self.terminate(error),
                Err(revealed) => {
                    let kind = postgres::classify_attempt(revealed.code());
                    self.check_for_leak(error.with_kind(kind))
                }
            },
            State::CheckingForLeak(error) => self.on_leak_check(event.row(), error),
            State::Terminating(error) => self.fail(error),
            State::Finished => Action::Done(Err(self
                .error(LockErrorKind::Database)
                .with_context("the machine is already done"))),
        }
    }
}
