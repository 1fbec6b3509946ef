//! The trait that users call on a connection: [`AdvisoryLocking`].

mod transaction;

use crate::capabilities::Capabilities;
use crate::combine_results::combine_results;
use crate::connection::AdvisoryLockGuard;
use crate::driver::blocking::{drive, drive_pair, snapshot};
use crate::error::LockError;
use crate::events;
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::options::LockScope;
use crate::pooling_mode::PoolingMode;
use crate::protocol::{Acquire, Acquired, PoolerCheck};
use crate::session::LockSession;

/// Named locks on a database connection.
///
/// On PostgreSQL, a lock keeps out every other session of the same database that asks for the same key, through this crate or
/// by any other means. On SQLite there are no locks: the body runs unprotected, and [`LockOptions::on_missing_lock`] says
/// whether that is worth a warning or an error.
///
/// | | on the session | in a transaction |
/// |---|---|---|
/// | run a body under the lock | [`with_advisory_lock`](Self::with_advisory_lock), [`try_with_advisory_lock`](Self::try_with_advisory_lock) | [`with_advisory_xact_lock`](Self::with_advisory_xact_lock), [`try_with_advisory_xact_lock`](Self::try_with_advisory_xact_lock) |
/// | hold the lock | [`acquire_advisory_lock`](Self::acquire_advisory_lock), [`try_acquire_advisory_lock`](Self::try_acquire_advisory_lock) | [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock), [`try_acquire_advisory_xact_lock`](Self::try_acquire_advisory_xact_lock) |
///
/// A *session-level* lock is held until it is released or the connection closes; commits and rollbacks do not touch it. A
/// *transaction-level* lock is held until its transaction ends, and there is nothing to release. If what the lock guards is
/// in this database, take the transaction-level lock: it cannot be released before the commit. If it is outside (a file, an
/// external service), or a long series of transactions, take the session-level lock.
///
/// # Contract
///
/// * The body runs only when this session was granted the lock, and the lock is released exactly once: on the normal path, on an
///   error, and on a panic.
/// * An error never hides a lock that is held: where the outcome is unknown, the connection is closed and no pool hands it out.
/// * If the session was lost before the release, the caller gets an error, also when the body succeeded. Nothing reconnects.
/// * The body's own error wins over an error of the release, which is logged.
/// * The session's settings, `lock_timeout` and `statement_timeout` among them, are the same after as before; neither cuts a
///   wait short.
/// * The same session may take the same lock again; the server counts, and each guard gives back one level. There is no upgrade
///   from shared to exclusive: an exclusive lock under one's own shared one is granted if nobody else shares it, and waits for the
///   others if they do.
/// * What the client knows of the transaction counts. A `BEGIN` sent as plain text is invisible to Diesel; it is noticed when a lock
///   taken in it is released.
///
/// Every method validates its options and the transaction first, on every backend; then nothing was sent if they are refused.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "rusqlite")] {
/// use std::time::Duration;
/// use advisory_locking::{AdvisoryLocking, LockOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production, a `PgConnection` of Diesel; in tests, SQLite.
/// let mut conn = rusqlite::Connection::open_in_memory()?;
///
/// conn.with_advisory_lock("driver_update_1", LockOptions::wait_up_to(Duration::from_secs(10)), |conn| {
///     conn.execute_batch("CREATE TABLE drivers (id INTEGER)")
/// })?;
///
/// let client_id = 4;
/// let done = conn.try_with_advisory_lock(("sync", client_id), LockOptions::no_wait(), |conn| {
///     conn.execute("INSERT INTO drivers VALUES (?1)", [client_id])
/// })?;
/// assert_eq!(done, Some(1)); // `None`: somebody else is at it
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no advisory locks here",
    label = "no lock session",
    note = "enable the feature for its client library in Cargo.toml: see feature-matrix.md",
    note = "for an enum of connections, implement `advisory_locking::session::DelegateLockSession`"
)]
pub trait AdvisoryLocking: LockSession + Sized {
    /// Runs `body` under the session-level lock on `key`, on this connection.
    ///
    /// # Errors
    ///
    /// The body's own error, or a [`LockError`] as `E`. The lock is not held afterwards. If the body ran and succeeded, its value
    /// is dropped.
    ///
    /// * The body did not run: [`HeldElsewhere`](crate::LockErrorKind::HeldElsewhere) without a wait,
    ///   [`TimedOut`](crate::LockErrorKind::TimedOut) with one, and what
    ///   [`acquire_advisory_lock`](Self::acquire_advisory_lock) reports besides.
    /// * The body ran: what [`AdvisoryLockGuard::release`] reports.
    ///
    /// # Examples
    ///
    /// See [the trait](Self).
    fn with_advisory_lock<T, E>(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<LockError>,
    {
        let guard = self.acquire_advisory_lock(key, options)?;
        run_with_guard(guard, body)
    }

    /// Runs `body` under the session-level lock on `key` if it can be had: `None` if it is held elsewhere or the wait ran out, and
    /// the body did not run.
    ///
    /// # Errors
    ///
    /// As [`with_advisory_lock`](Self::with_advisory_lock), but for the two that are `None` here.
    ///
    /// # Examples
    ///
    /// See [the trait](Self).
    fn try_with_advisory_lock<T, E>(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<LockError>,
    {
        match self.try_acquire_advisory_lock(key, options)? {
            Some(guard) => run_with_guard(guard, body).map(Some),
            None => Ok(None),
        }
    }

    /// Takes the session-level lock on `key` and holds it until the guard goes.
    ///
    /// # Errors
    ///
    /// The lock is not held.
    ///
    /// * [`HeldElsewhere`](crate::LockErrorKind::HeldElsewhere), [`TimedOut`](crate::LockErrorKind::TimedOut).
    /// * [`Deadlock`](crate::LockErrorKind::Deadlock), [`Canceled`](crate::LockErrorKind::Canceled),
    ///   [`TooManyLocks`](crate::LockErrorKind::TooManyLocks), [`Unsupported`](crate::LockErrorKind::Unsupported),
    ///   [`Database`](crate::LockErrorKind::Database): as the server or the client reports them.
    /// * [`InvalidOptions`](crate::LockErrorKind::InvalidOptions), [`InTransaction`](crate::LockErrorKind::InTransaction),
    ///   [`NoMutualExclusion`](crate::LockErrorKind::NoMutualExclusion): nothing was sent.
    /// * [`SessionChanged`](crate::LockErrorKind::SessionChanged): two sessions answered.
    ///
    /// # Examples
    ///
    /// See [`AdvisoryLockGuard`].
    fn acquire_advisory_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<AdvisoryLockGuard<&mut Self>, LockError> {
        let key = key.into();
        acquire(self, &key, &options, LockScope::Session)?
            .granted_or_error(&key)
            .map(|grant| AdvisoryLockGuard::new(self, grant))
    }

    /// Takes the session-level lock on `key` if it can be had: `None` if it is held elsewhere or the wait ran out.
    ///
    /// # Errors
    ///
    /// As [`acquire_advisory_lock`](Self::acquire_advisory_lock), but for the two that are `None` here.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "rusqlite")] {
    /// use advisory_locking::{AdvisoryLocking, LockOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut conn = rusqlite::Connection::open_in_memory()?;
    /// match conn.try_acquire_advisory_lock(("report", 2026), LockOptions::no_wait())? {
    ///     Some(guard) => guard.release()?,
    ///     None => println!("somebody else writes it"),
    /// }
    /// # Ok(())
    /// # }
    /// # main().unwrap();
    /// # }
    /// ```
    fn try_acquire_advisory_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<AdvisoryLockGuard<&mut Self>>, LockError> {
        let acquired = acquire(self, &key.into(), &options, LockScope::Session)?;
        Ok(acquired
            .granted()
            .map(|grant| AdvisoryLockGuard::new(self, grant)))
    }

    /// Takes the transaction-level lock on `key` inside the caller's open transaction, which holds it to its end.
    ///
    /// A wait that ends without the lock leaves the transaction usable: it runs in a savepoint of its own. In a transaction that is
    /// `REPEATABLE READ` or `SERIALIZABLE`, take the lock with another statement before the first one that reads: such a
    /// transaction sees the data of the moment of its first statement, which may be this one, from before the wait.
    ///
    /// A rollback to a savepoint that was set before the lock was taken frees the lock.
    ///
    /// # Errors
    ///
    /// The lock is not held.
    ///
    /// * [`HeldElsewhere`](crate::LockErrorKind::HeldElsewhere), [`TimedOut`](crate::LockErrorKind::TimedOut),
    ///   [`Deadlock`](crate::LockErrorKind::Deadlock): the transaction is usable as before.
    /// * [`NotInTransaction`](crate::LockErrorKind::NotInTransaction), [`InvalidOptions`](crate::LockErrorKind::InvalidOptions),
    ///   [`NoMutualExclusion`](crate::LockErrorKind::NoMutualExclusion): nothing was sent.
    /// * [`TransactionAborted`](crate::LockErrorKind::TransactionAborted): the transaction was, or is now, to be rolled back.
    /// * These leave a transaction that may have to be rolled back:
    ///   [`Canceled`](crate::LockErrorKind::Canceled), [`TooManyLocks`](crate::LockErrorKind::TooManyLocks),
    ///   [`Unsupported`](crate::LockErrorKind::Unsupported), [`Database`](crate::LockErrorKind::Database): as the server or the
    ///   client reports them.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "diesel-sqlite")] {
    /// use advisory_locking::{AdvisoryLocking, LockOptions};
    /// use diesel::prelude::*;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut conn = SqliteConnection::establish(":memory:")?;
    /// conn.transaction(|conn| {
    ///     conn.acquire_advisory_xact_lock(("signup", "a@b.c"), LockOptions::no_wait())?;
    ///     // ... look, then create ...
    ///     diesel::QueryResult::Ok(())
    /// })?; // released with the commit
    /// # Ok(())
    /// # }
    /// # main().unwrap();
    /// # }
    /// ```
    fn acquire_advisory_xact_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<(), LockError> {
        let key = key.into();
        acquire(self, &key, &options, LockScope::Transaction)?
            .granted_or_error(&key)
            .map(|grant| events::granted(&grant))
    }

    /// Takes the transaction-level lock on `key` inside the caller's open transaction if it can be had: `false` if it is held
    /// elsewhere or the wait ran out; the transaction is usable as before.
    ///
    /// # Errors
    ///
    /// As [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock), but for the two that are `false` here.
    ///
    /// # Examples
    ///
    /// See [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock).
    fn try_acquire_advisory_xact_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<bool, LockError> {
        let acquired = acquire(self, &key.into(), &options, LockScope::Transaction)?;
        Ok(acquired.granted().inspect(events::granted).is_some())
    }

    /// Begins a transaction, takes the transaction-level lock on `key`, runs `body`, and commits; or rolls back if the body fails
    /// or panics.
    ///
    /// Inside an open transaction it begins a savepoint, as the client's own `transaction` does; the lock is then held to the end of
    /// the outer transaction.
    ///
    /// # Errors
    ///
    /// The body's own error, or a [`LockError`] as `E`. The lock is not held afterwards, unless an outer transaction still is open.
    ///
    /// * The body did not run: as [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock), or
    ///   [`Database`](crate::LockErrorKind::Database) if the transaction did not begin.
    /// * The body succeeded: [`CommitFailed`](crate::LockErrorKind::CommitFailed), with the client's error as its source;
    ///   [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen) if it left a deeper transaction open;
    ///   [`NotHeld`](crate::LockErrorKind::NotHeld) if it ended the transaction itself.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "diesel-sqlite")] {
    /// use advisory_locking::{AdvisoryLocking, LockOptions};
    /// use diesel::prelude::*;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut conn = SqliteConnection::establish(":memory:")?;
    /// conn.with_advisory_xact_lock(("pull-request", 1234), LockOptions::wait_forever(), |conn| {
    ///     diesel::sql_query("CREATE TABLE pull_requests (id INTEGER PRIMARY KEY)").execute(conn)
    /// })?;
    /// # Ok(())
    /// # }
    /// # main().unwrap();
    /// # }
    /// ```
    fn with_advisory_xact_lock<T, E>(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<LockError>,
    {
        let key = key.into();
        let grant = transaction::begin_and_acquire(self, &key, &options)?.granted_or_error(&key)?;
        transaction::run_in_transaction(self, grant, body)
    }

    /// As [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) if the lock can be had: `None` if it is held elsewhere or the
    /// wait ran out; then the body did not run and nothing was left begun.
    ///
    /// # Errors
    ///
    /// As [`with_advisory_xact_lock`](Self::with_advisory_xact_lock), but for the two that are `None` here.
    ///
    /// # Examples
    ///
    /// See [`with_advisory_xact_lock`](Self::with_advisory_xact_lock).
    fn try_with_advisory_xact_lock<T, E>(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<LockError>,
    {
        match transaction::begin_and_acquire(self, &key.into(), &options)?.granted() {
            Some(grant) => transaction::run_in_transaction(self, grant, body).map(Some),
            None => Ok(None),
        }
    }

    /// Finds out with a second connection of the same source whether sessions are kept, so that session-level locks work.
    ///
    /// Both connections must be idle. It takes about thirty round trips; a program does it when it starts. That a
    /// pooler stands in between which pools transactions is certain if it is reported. If the pooler is so busy that it gives
    /// both connections the same sessions in all of them, by chance, it is not noticed.
    ///
    /// # Errors
    ///
    /// Nothing is left locked.
    ///
    /// * [`InTransaction`](crate::LockErrorKind::InTransaction): a transaction is open on one of them.
    /// * [`Database`](crate::LockErrorKind::Database): a statement failed. On a server without `plpgsql` it always does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "diesel-postgres")] {
    /// use advisory_locking::AdvisoryLocking;
    /// use diesel::{Connection, pg::PgConnection};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let url = std::env::var("DATABASE_URL")?;
    /// let [mut first, mut second] = [PgConnection::establish(&url)?, PgConnection::establish(&url)?];
    /// first.detect_pooler(&mut second)?.require_dedicated_sessions()?;
    /// # Ok(())
    /// # }
    /// # main().unwrap();
    /// # }
    /// ```
    fn detect_pooler(&mut self, other: &mut Self) -> Result<PoolingMode, LockError> {
        let check = PoolerCheck::new(&snapshot(self), &snapshot(other));
        drive_pair(self, other, check)
    }

    /// What the connection's backend can do; asks no server.
    ///
    /// # Examples
    ///
    /// See [`Capabilities`].
    fn capabilities(&mut self) -> Capabilities {
        Capabilities::of(self.session_backend())
    }
}

impl<S: LockSession> AdvisoryLocking for S {}

pub(crate) fn acquire<S: LockSession + ?Sized>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
) -> Result<Acquired, LockError> {
    events::requested(key, scope);
    let snapshot = snapshot(session);
    drive(session, Acquire::new(key.clone(), options, scope, snapshot))
}

/// Runs a body on the connection of a guard, then releases.
pub(crate) fn run_with_guard<C, T, E>(
    mut guard: AdvisoryLockGuard<C>,
    body: impl FnOnce(&mut C::Target) -> Result<T, E>,
) -> Result<T, E>
where
    C: std::ops::DerefMut<Target: LockSession + Sized>,
    E: From<LockError>,
{
    let result = body(&mut guard);
    combine_results(result, guard.release())
}
