//! Named locks on a blocking connection: [`AdvisoryLocking`].

mod transaction;

use crate::capabilities::Capabilities;
use crate::combine_results::combine_results;
use crate::connection::AdvisoryLockGuard;
use crate::driver::blocking::{
    drive_acquire, drive_pair, identify, report, snapshot, with_holders,
};
use crate::error::{LockError, contended_to_none};
use crate::key::LockKey;
use crate::lock_report::LockReport;
use crate::options::{LockOptions, LockScope};
use crate::pooling_mode::PoolingMode;
use crate::protocol::{Acquire, Grant, PoolerCheck};
use crate::server_report::ServerReport;
use crate::session::{LockSession, Statement};

/// Named locks on a blocking database connection.
///
/// On PostgreSQL these are [advisory
/// locks](https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS). A lock
/// excludes every other session of the same database that requests the same key, through this crate
/// or by other means. SQLite has no such locks: the body runs without one, and
/// [`LockOptions::on_missing_lock`] selects a warning, an error or silence.
///
/// | | on the session | in a transaction |
/// |---|---|---|
/// | run a body under the lock | [`with_advisory_lock`](Self::with_advisory_lock), [`try_with_advisory_lock`](Self::try_with_advisory_lock) | [`with_advisory_xact_lock`](Self::with_advisory_xact_lock), [`try_with_advisory_xact_lock`](Self::try_with_advisory_xact_lock) |
/// | hold the lock | [`acquire_advisory_lock`](Self::acquire_advisory_lock), [`try_acquire_advisory_lock`](Self::try_acquire_advisory_lock) | [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock), [`try_acquire_advisory_xact_lock`](Self::try_acquire_advisory_xact_lock) |
///
/// A *session-level* lock is held until it is released or the session ends. Commits and rollbacks
/// do not release it. A *transaction-level* lock is held until its transaction ends, and cannot be
/// released earlier. Use a transaction-level lock for data in this database, because it covers the
/// commit. Use a session-level lock for a resource outside the database (a file, an external
/// service) or for a series of transactions.
///
/// # Contract
///
/// * The body runs only if this session was granted the lock. The lock is released exactly once:
///   after success, after an error, and after a panic.
/// * An error never hides a held lock. If the state of the lock is unknown, the session is
///   terminated and the pool discards the connection.
/// * If the session ended before the release, the caller gets an error, even if the body succeeded.
///   Nothing reconnects.
/// * If both the body and the release fail, the caller gets the error of the body. The error of the
///   release is logged.
/// * The settings of the session,
///   [`lock_timeout`](https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT)
///   and
///   [`statement_timeout`](https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-STATEMENT-TIMEOUT)
///   included, are unchanged afterwards. Neither shortens a wait.
/// * A session may acquire the same lock several times. The server counts, and each guard [releases
///   one
///   level](https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS).
///   There is no upgrade from shared to exclusive: the exclusive request waits for the other
///   sessions that share the lock.
/// * The transaction state is the one that the client library knows. A `BEGIN` sent as plain text
///   is invisible to Diesel and to the crate postgres. The release of a session-level lock that was
///   acquired in it detects it. [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) fails in
///   it, and terminates the session.
///
/// Every method that acquires a lock validates its options and the transaction state first, on
/// every backend. If they are rejected, nothing was sent.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "rusqlite")] {
/// use std::time::Duration;
/// use advisory_locking::{AdvisoryLocking, LockOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production a `PgConnection` of Diesel; in tests SQLite.
/// let mut conn = rusqlite::Connection::open_in_memory()?;
///
/// let wait = LockOptions::wait_up_to(Duration::from_secs(10));
/// conn.with_advisory_lock("driver_update_1", wait, |conn| {
///     conn.execute_batch("CREATE TABLE drivers (id INTEGER)")
/// })?;
///
/// let client_id = 4;
/// let done = conn.try_with_advisory_lock(("sync", client_id), LockOptions::no_wait(), |conn| {
///     conn.execute("INSERT INTO drivers VALUES (?1)", [client_id])
/// })?;
/// assert_eq!(done, Some(1)); // `None`: another session holds the lock
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no advisory locks here",
    label = "no adapter for this connection type",
    note = "for an enum of connections, implement `advisory_locking::session::DelegateLockSession`"
)]
#[cfg_attr(
    not(feature = "diesel-postgres"),
    diagnostic::on_unimplemented(
        note = "Diesel's `PgConnection` needs the feature `diesel-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "diesel-sqlite"),
    diagnostic::on_unimplemented(
        note = "Diesel's `SqliteConnection` needs the feature `diesel-sqlite`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "postgres"),
    diagnostic::on_unimplemented(
        note = "the `Client` of the crate postgres needs the feature `postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "rusqlite"),
    diagnostic::on_unimplemented(
        note = "rusqlite's `Connection` needs the feature `rusqlite`, which is off"
    )
)]
pub trait AdvisoryLocking: LockSession + Sized {
    /// Runs `body` under the session-level lock on `key`, on this connection.
    ///
    /// # Errors
    ///
    /// The error of the body, or a [`LockError`] as `E`. The lock is not held afterwards, except as
    /// [`AdvisoryLockGuard::release`] states. If the body succeeded and the release failed, the
    /// value of the body is dropped.
    ///
    /// * The body did not run: [`HeldElsewhere`](crate::LockErrorKind::HeldElsewhere) without a
    ///   wait, [`TimedOut`](crate::LockErrorKind::TimedOut) with a limit, or another error of
    ///   [`acquire_advisory_lock`](Self::acquire_advisory_lock).
    /// * The body ran: the errors of [`AdvisoryLockGuard::release`].
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

    /// Runs `body` under the session-level lock on `key`, or returns `None` if the lock is not
    /// granted.
    ///
    /// # Errors
    ///
    /// As [`with_advisory_lock`](Self::with_advisory_lock), except `HeldElsewhere` and `TimedOut`,
    /// which are `None` here. The body did not run then. The lock is not held afterwards, except as
    /// [`AdvisoryLockGuard::release`] states.
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

    /// Acquires the session-level lock on `key` and returns a guard that holds it.
    ///
    /// # Errors
    ///
    /// The lock is not held, with one exception in this list.
    ///
    /// * [`HeldElsewhere`](crate::LockErrorKind::HeldElsewhere),
    ///   [`TimedOut`](crate::LockErrorKind::TimedOut): another session holds the lock.
    /// * [`Deadlock`](crate::LockErrorKind::Deadlock),
    ///   [`Canceled`](crate::LockErrorKind::Canceled),
    ///   [`TooManyLocks`](crate::LockErrorKind::TooManyLocks),
    ///   [`Unsupported`](crate::LockErrorKind::Unsupported),
    ///   [`Database`](crate::LockErrorKind::Database): errors of the server or of the client
    ///   library.
    /// * [`NoMutualExclusion`](crate::LockErrorKind::NoMutualExclusion),
    ///   [`Standby`](crate::LockErrorKind::Standby): the lock would not exclude all other sessions.
    /// * [`InvalidOptions`](crate::LockErrorKind::InvalidOptions),
    ///   [`InTransaction`](crate::LockErrorKind::InTransaction): nothing was sent.
    /// * [`TransactionAborted`](crate::LockErrorKind::TransactionAborted): the open transaction,
    ///   which the options allow, was aborted before. The session and its other locks stay. Diesel
    ///   and diesel-async report `Database`, because they hide the SQLSTATE. In such a transaction
    ///   any other failed attempt terminates the session: an aborted transaction accepts no
    ///   release.
    /// * [`SessionChanged`](crate::LockErrorKind::SessionChanged): two sessions replied to this
    ///   call. This is the exception: a session of a pooler may hold the lock.
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
        let acquired = acquire(self, &key, &options, LockScope::Session);
        let grant = with_holders(self, &key, &options, acquired)?;
        Ok(AdvisoryLockGuard::new(self, grant))
    }

    /// Acquires the session-level lock on `key`, or returns `None` if it is not granted.
    ///
    /// # Errors
    ///
    /// As [`acquire_advisory_lock`](Self::acquire_advisory_lock), except `HeldElsewhere` and
    /// `TimedOut`, which are `None` here. The lock is not held, with the exception stated there.
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
    ///     None => println!("another session writes it"),
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
        let acquired = acquire(self, &key.into(), &options, LockScope::Session);
        let grant = contended_to_none(acquired)?;
        Ok(grant.map(|grant| AdvisoryLockGuard::new(self, grant)))
    }

    /// Acquires the transaction-level lock on `key` inside the caller's open transaction. The lock
    /// is held until that transaction ends.
    ///
    /// A wait that ends without the lock leaves the transaction usable, because the wait runs in a
    /// [savepoint](https://www.postgresql.org/docs/current/sql-savepoint.html). In a [`REPEATABLE
    /// READ` or `SERIALIZABLE`](https://www.postgresql.org/docs/current/transaction-iso.html)
    /// transaction, acquire the lock before the first statement that reads data. The snapshot of
    /// such a transaction is taken by its first statement. If that statement is a lock request
    /// which waits, the snapshot is older than the grant.
    ///
    /// A rollback to a savepoint that was set before the acquisition releases the lock. A statement
    /// that fails aborts the transaction, or the savepoint that it is in. The server then [releases
    /// at once](https://github.com/postgres/postgres/blob/master/src/backend/access/transam/README)
    /// what was acquired in it, before the client rolls back. So return the error of a statement.
    ///
    /// During a wait the transaction stays open, and the server keeps all that it holds: locks,
    /// row versions, and a session of a transaction pooler. Its
    /// [`idle_in_transaction_session_timeout`](https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT)
    /// applies to each pause between two polls. In a `READ COMMITTED` transaction, a waiter that
    /// polls has no snapshot in its pauses.
    /// [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) polls outside the transaction, so
    /// it holds nothing.
    ///
    /// # Errors
    ///
    /// The lock is not held.
    ///
    /// * [`HeldElsewhere`](crate::LockErrorKind::HeldElsewhere),
    ///   [`TimedOut`](crate::LockErrorKind::TimedOut),
    ///   [`Deadlock`](crate::LockErrorKind::Deadlock): the transaction remains usable.
    /// * [`NoMutualExclusion`](crate::LockErrorKind::NoMutualExclusion),
    ///   [`Standby`](crate::LockErrorKind::Standby): the lock would not exclude all other sessions.
    ///   The transaction remains usable.
    /// * [`NotInTransaction`](crate::LockErrorKind::NotInTransaction),
    ///   [`InvalidOptions`](crate::LockErrorKind::InvalidOptions): nothing was sent.
    /// * [`TransactionAborted`](crate::LockErrorKind::TransactionAborted): the caller must roll the
    ///   transaction back.
    /// * [`Canceled`](crate::LockErrorKind::Canceled),
    ///   [`TooManyLocks`](crate::LockErrorKind::TooManyLocks),
    ///   [`Unsupported`](crate::LockErrorKind::Unsupported),
    ///   [`Database`](crate::LockErrorKind::Database): errors of the server or of the client
    ///   library. The transaction may be aborted.
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
        acquire(self, &key.into(), &options, LockScope::Transaction).map(drop)
    }

    /// Acquires the transaction-level lock on `key` inside the caller's open transaction, or
    /// returns `false` if it is not granted. The transaction remains usable.
    ///
    /// # Errors
    ///
    /// As [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock), except `HeldElsewhere`
    /// and `TimedOut`, which are `false` here. The lock is not held.
    ///
    /// # Examples
    ///
    /// See [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock).
    fn try_acquire_advisory_xact_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<bool, LockError> {
        let acquired = acquire(self, &key.into(), &options, LockScope::Transaction);
        Ok(contended_to_none(acquired)?.is_some())
    }

    /// Begins a transaction, acquires the transaction-level lock on `key`, runs `body`, and
    /// commits. Rolls back if the body fails or panics.
    ///
    /// Inside an open transaction it begins a savepoint, as the client library's own `transaction`
    /// does. The lock is then held until the outer transaction ends. A failed statement may release
    /// it at once: see [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock).
    ///
    /// With [`WaitStrategy::Poll`](crate::WaitStrategy::Poll) it pauses outside the transaction:
    /// each attempt is in a transaction of its own, which is rolled back if the lock is contended.
    /// So a waiter holds nothing on the server, and a transaction in `REPEATABLE READ` has the
    /// snapshot of the last attempt. Inside an open transaction it pauses in the savepoint.
    ///
    /// # Idle bodies
    ///
    /// With Diesel, the snapshot of the lock statement lasts until the next statement. Under a body
    /// that runs no statement for long, it delays [`CREATE INDEX
    /// CONCURRENTLY`](https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY)
    /// of other sessions, and `VACUUM` keeps dead rows. Before such a pause, run
    /// `conn.batch_execute("SELECT")`. In `REPEATABLE READ` the snapshot lasts as long as the
    /// transaction.
    ///
    /// # Errors
    ///
    /// The error of the body, or a [`LockError`] as `E`. The lock is not held afterwards, unless an
    /// outer transaction is still open, or the transaction was prepared.
    ///
    /// * The body did not run: the errors of
    ///   [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock), or
    ///   [`Database`](crate::LockErrorKind::Database) if the transaction did not begin.
    /// * The body succeeded, and the transaction was not committed by this call:
    ///   * [`CommitFailed`](crate::LockErrorKind::CommitFailed): the commit failed, and the work is
    ///     rolled back. Its source is the client library's error.
    ///   * [`CommitUnknown`](crate::LockErrorKind::CommitUnknown): the session was lost during the
    ///     commit. The work is committed or rolled back.
    ///   * [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen): the body left a
    ///     nested transaction open, or the client library marked the connection as broken. The
    ///     session was terminated.
    ///   * [`NotHeld`](crate::LockErrorKind::NotHeld): the body ended the transaction itself, in
    ///     whatever way, also if it began another one. That one is rolled back.
    ///   * [`TransactionPrepared`](crate::LockErrorKind::TransactionPrepared): the body prepared
    ///     the transaction for two-phase commit. The prepared transaction holds the lock.
    ///   * [`Lost`](crate::LockErrorKind::Lost): the session ended, and the connection is marked as
    ///     broken or the body left a nested transaction open. On SQLite, it is marked as broken.
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
        let acquired = transaction::begin_and_acquire(self, &key, &options);
        let grant = with_holders(self, &key, &options, acquired)?;
        transaction::run_in_transaction(self, grant, body)
    }

    /// Runs `body` as [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) does, or returns
    /// `None` if the lock is not granted. The body did not run then, and the transaction is rolled
    /// back.
    ///
    /// # Errors
    ///
    /// As [`with_advisory_xact_lock`](Self::with_advisory_xact_lock), except `HeldElsewhere` and
    /// `TimedOut`, which are `None` here. The lock is not held afterwards, unless an outer
    /// transaction is still open or the transaction was prepared.
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
        let acquired = transaction::begin_and_acquire(self, &key.into(), &options);
        match contended_to_none(acquired)? {
            Some(grant) => transaction::run_in_transaction(self, grant, body).map(Some),
            None => Ok(None),
        }
    }

    /// Detects a transaction pooler, with a second connection to the same address.
    ///
    /// No transaction may be open on either connection. The check takes about forty round trips and
    /// 20 ms, so programs run it at startup. [`Multiplexed`](PoolingMode::Multiplexed) is certain
    /// when it is reported. [`Dedicated`](PoolingMode::Dedicated) is not: a pooler may by chance
    /// assign the same session to each connection in all round trips.
    ///
    /// # Errors
    ///
    /// No lock is held afterwards, except perhaps that of the check: after
    /// [`Multiplexed`](PoolingMode::Multiplexed), a busy session of the pooler may keep it. Its key
    /// is random.
    ///
    /// * [`InTransaction`](crate::LockErrorKind::InTransaction): a transaction is open on one of
    ///   the connections.
    /// * [`NoMutualExclusion`](crate::LockErrorKind::NoMutualExclusion): the server grants every
    ///   lock to every session.
    /// * [`Unsupported`](crate::LockErrorKind::Unsupported): the server has no lock functions.
    /// * [`Database`](crate::LockErrorKind::Database),
    ///   [`Canceled`](crate::LockErrorKind::Canceled),
    ///   [`TooManyLocks`](crate::LockErrorKind::TooManyLocks) or another kind: a statement failed.
    ///
    /// Both sessions are terminated after `NoMutualExclusion`, after a failed lock statement, and
    /// if one of them may still hold the lock of the check.
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
    /// let mut first = PgConnection::establish(&url)?;
    /// let mut second = PgConnection::establish(&url)?;
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

    /// Returns the kind and version of the server, and the behaviour of its lock functions.
    ///
    /// The call tries a transaction-level lock on a random key, which ends with its statement. On
    /// SQLite it sends nothing.
    ///
    /// # Errors
    ///
    /// No lock is held by the call.
    ///
    /// * [`InTransaction`](crate::LockErrorKind::InTransaction): a transaction is open, which a
    ///   refused statement would abort.
    /// * [`Database`](crate::LockErrorKind::Database),
    ///   [`Canceled`](crate::LockErrorKind::Canceled) or another kind: the server did not return
    ///   its version.
    ///
    /// # Examples
    ///
    /// See [`ServerReport`].
    fn identify(&mut self) -> Result<ServerReport, LockError> {
        identify(self)
    }

    /// Returns the sessions that hold the lock on `key` and the sessions that wait for it.
    ///
    /// A snapshot: the lock may change hands before the caller reads the report. It contains at
    /// most 1,000 sessions, and no client that polls. A role sees the process id, the role and the
    /// application name of every session. It sees [`details`](crate::SessionInfo::details) only of
    /// sessions of its own roles, unless it is a member of `pg_read_all_stats`. On SQLite the
    /// report is empty.
    ///
    /// The server copies its whole lock table for a report, so call it once after a timeout and
    /// not in a loop.
    ///
    /// # Errors
    ///
    /// [`Database`](crate::LockErrorKind::Database) or another kind, if the statement failed. Locks
    /// that the connection holds stay held.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "diesel-postgres")] {
    /// use advisory_locking::{AdvisoryLocking, LockOptions};
    /// use diesel::{Connection, pg::PgConnection};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut conn = PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
    /// conn.with_advisory_lock("example-of-holders", LockOptions::no_wait(), |conn| {
    ///     let report = conn.advisory_lock_holders("example-of-holders")?;
    ///     assert_eq!(report.holders.len(), 1);
    ///     println!("{report}"); // held by pid 4711 (postgres, active)
    ///     Ok::<_, advisory_locking::LockError>(())
    /// })?;
    /// # Ok(())
    /// # }
    /// # main().unwrap();
    /// # }
    /// ```
    fn advisory_lock_holders(&mut self, key: impl Into<LockKey>) -> Result<LockReport, LockError> {
        let key = key.into();
        let reports = report(self, Statement::report(Some(key.raw())));
        reports
            .map(|reports| LockReport::of_key(key.raw(), reports))
            .map_err(|error| error.with_key(&key))
    }

    /// Returns a report for each advisory lock of the database that is held or awaited.
    ///
    /// All reports together contain at most 1,000 sessions, those of awaited locks first. For the
    /// rest see [`advisory_lock_holders`](Self::advisory_lock_holders).
    ///
    /// # Errors
    ///
    /// As [`advisory_lock_holders`](Self::advisory_lock_holders).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "diesel-postgres")] {
    /// use advisory_locking::AdvisoryLocking;
    /// use diesel::{Connection, pg::PgConnection};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut conn = PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
    /// for report in conn.advisory_locks()? {
    ///     println!("{}: {report}", report.key);
    /// }
    /// # Ok(())
    /// # }
    /// # main().unwrap();
    /// # }
    /// ```
    fn advisory_locks(&mut self) -> Result<Vec<LockReport>, LockError> {
        report(self, Statement::report(None))
    }

    /// Returns the features of the connection's backend. Sends nothing.
    ///
    /// # Examples
    ///
    /// See [`Capabilities`].
    #[must_use]
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
) -> Result<Grant, LockError> {
    drive_acquire(session, key, options, scope, |key, options, snapshot| {
        Acquire::new(key, options, scope, snapshot)
    })
}

/// Runs a body on the connection of a guard, then releases the lock.
pub(crate) fn run_with_guard<C, T, E>(
    mut guard: AdvisoryLockGuard<C>,
    body: impl FnOnce(&mut C::Target) -> Result<T, E>,
) -> Result<T, E>
where
    C: std::ops::DerefMut<Target: LockSession + Sized>,
    E: From<LockError>,
{
    // If the body panics, the drop of the guard releases the lock.
    let span = guard.span();
    let result = span.in_scope(|| body(&mut guard));
    // The span covers the body and not the release.
    drop(span);
    combine_results(result, guard.release())
}
