//! Transactions, savepoints and clean-up on a pinned connection.
//!
//! # Implementation details
//!
//! sqlx 0.9.0 has one transaction depth for the session, and rolls a dropped transaction back at
//! the next statement. It loses the depth when a `begin` is dropped in flight. So this module sends
//! `BEGIN`, `SAVEPOINT`, `COMMIT`, `RELEASE` and `ROLLBACK` itself.
//!
//! * Each statement sets [`InFlight`] before it is sent. If its future is dropped, the next user of
//!   the connection waits for the reply and then runs the [`Recovery`].
//! * A transaction that is dropped puts its rollback into the transaction log. [`run_cleanup`] runs
//!   it before any other statement.
//!
//! A user therefore never sees a transaction that a dropped future began, and a dropped commit or
//! rollback has ended its transaction.
//!
//! [`run_cleanup`]: PinnedState::run_cleanup

use sea_orm::{DbErr, SqliteTransactionMode, TransactionOptions};

use super::error::{
    closed_error, is_aborted, is_disconnected, is_other_transaction, query_error, session_error,
    transaction_ended_error,
};
use super::state::{ClientConnection, InFlight, PinnedState, Recovery};
use super::transaction_log::{Cleanup, CommitStep, TransactionId};
use crate::backends::postgres::{checked, release_savepoint, roll_back_savepoint};
use crate::backends::sqlx::client;
use crate::session::{Row, Script, Statement};

/// Returns the name of the savepoint at a level, where 1 is the first inside a transaction.
///
/// The level makes it unique among the open savepoints of this crate.
fn savepoint(level: usize) -> String {
    format!("advisory_locking_{level}")
}

/// Returns the text that begins a transaction of SQLite, or a savepoint in one.
fn begin_text_of_sqlite(level: usize, options: &TransactionOptions) -> String {
    // The only option of SQLite. As with SeaORM, it has no effect on a savepoint.
    let mode = options.sqlite_transaction_mode.as_ref();
    match level {
        0 => format!(
            "BEGIN {}",
            mode.map_or("", SqliteTransactionMode::sqlite_keyword)
        ),
        _ => format!("SAVEPOINT {}", savepoint(level)),
    }
}

/// Returns the text that begins a transaction of PostgreSQL, or a savepoint in one.
fn begin_text(level: usize, options: &TransactionOptions) -> String {
    let mut modes = Vec::new();
    if let Some(isolation) = options.isolation_level {
        modes.push(format!("ISOLATION LEVEL {isolation}"));
    }
    if let Some(access) = options.access_mode {
        modes.push(access.to_string());
    }
    let modes = modes.join(", ");
    match level {
        0 => format!("BEGIN {modes}"),
        _ if modes.is_empty() => format!("SAVEPOINT {}", savepoint(level)),
        // As SeaORM does: the server rejects the modes that a savepoint cannot have.
        _ => format!("SAVEPOINT {}; SET TRANSACTION {modes}", savepoint(level)),
    }
}

impl PinnedState {
    /// Fails if the transaction has ended.
    pub(super) fn check_open(&self, transaction: Option<TransactionId>) -> Result<(), DbErr> {
        transaction.map_or(Ok(()), |id| self.level_of(id).map(drop))
    }

    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(
        &mut self,
        options: &TransactionOptions,
    ) -> Result<TransactionId, DbErr> {
        let level = self.next_level().await?;
        self.in_flight = InFlight::TransactionControl(Recovery::Begun(level));
        let begun = self.send_begin(level, options).await;
        if begun.is_err() && level > 0 {
            // If the options failed, the savepoint exists, and the transaction is aborted.
            self.drain_replies().await?;
            self.in_flight = InFlight::TransactionControl(Recovery::RolledBack);
            // The caller gets the error of the begin.
            let _ = self.send_rollback(level).await;
        }
        self.in_flight = InFlight::Nothing;
        begun?;
        let id = TransactionId::next();
        if self.log.lock().push(level, id) {
            return Ok(id);
        }
        // The outer transaction was dropped during the begin, and its rollback is pending.
        self.in_flight = InFlight::TransactionControl(Recovery::RolledBack);
        let rolled_back = self.send_rollback(level).await;
        self.in_flight = InFlight::Nothing;
        rolled_back.and(Err(transaction_ended_error()))
    }

    /// Returns the level of the next transaction, after the pending clean-up.
    async fn next_level(&mut self) -> Result<usize, DbErr> {
        loop {
            self.drain_replies().await?;
            {
                let log = self.log.lock();
                if log.is_clean() {
                    return Ok(log.open.len());
                }
            }
            // Another transaction was dropped during the drain.
            self.run_cleanup().await?;
        }
    }

    /// Begins a transaction and runs a lock statement in it, in one message if it is the outermost.
    ///
    /// If `BEGIN` fails, the server does not run the statement.
    pub(super) async fn begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> Result<(TransactionId, Result<Row, DbErr>), DbErr> {
        if self.next_level().await? > 0 {
            let id = self.begin(&TransactionOptions::default()).await?;
            return Ok((id, self.run_statement(statement).await));
        }
        // Behind a pooler, each transaction may run in another session.
        self.log.lock().pid = None;
        self.in_flight = InFlight::TransactionControl(Recovery::Begun(0));
        let sql = format!("BEGIN; {}", statement.simple_sql());
        let fetched = client::fetch_unprepared(self.postgres()?, sql).await;
        let row = self.finish(fetched);
        // Its code shows that the session was in an aborted transaction before. Any other error may
        // be that of `BEGIN` or of the statement. A rollback ends the transaction in both cases.
        let row = match row.map_err(query_error) {
            Err(error) if is_aborted(&error) => return Err(error),
            row => row,
        };
        if let Ok(row) = &row {
            self.record_pid(statement, row);
        }
        let id = TransactionId::next();
        if self.log.lock().push(0, id) {
            Ok((id, row))
        } else {
            Err(transaction_ended_error())
        }
    }

    /// Commits a transaction after a check, and rolls back the transactions in it that are still
    /// open.
    ///
    /// If the commit fails, the transaction is rolled back.
    pub(super) async fn commit(
        &mut self,
        id: TransactionId,
        check: Option<&Script>,
    ) -> Result<(), DbErr> {
        let level = loop {
            self.drain_replies().await?;
            let step = self.log.lock().start_commit(id);
            match step.ok_or_else(transaction_ended_error)? {
                CommitStep::Send { level } => break level,
                // Another thread may have dropped a transaction since the last clean-up.
                CommitStep::RunCleanup => self.run_cleanup().await?,
            }
        };
        self.in_flight = InFlight::TransactionControl(Recovery::Committed(level));
        let committed = self.send_commit(level, check).await;
        if let Err(error) = &committed
            // A failed commit of the outermost one has ended it. A failure before the commit has
            // not, nor has one of SQLite.
            && (level > 0 || self.is_no_op() || is_aborted(error) || is_other_transaction(error))
        {
            // The caller gets the error of the commit. If the rollback fails, the connection is
            // closed.
            match self.drain_replies().await {
                Ok(()) => drop(self.roll_back_level(level).await),
                Err(_) => self.log.lock().closed = true,
            }
        }
        self.in_flight = InFlight::Nothing;
        committed
    }

    /// Rolls a transaction back with those inside it, or does nothing if it has ended.
    pub(super) async fn roll_back(&mut self, id: TransactionId) -> Result<(), DbErr> {
        self.drain_replies().await?;
        match self.level_of(id) {
            Ok(level) => self.roll_back_level(level).await,
            Err(_) => Ok(()),
        }
    }

    /// Runs the recovery of the statement in flight, and then the pending clean-up.
    ///
    /// Discards the connection on failure: its transaction is unknown then, so no later statement
    /// may run.
    pub(super) async fn run_cleanup(&mut self) -> Result<(), DbErr> {
        let cleaned = self.recover_and_run_pending().await;
        if let Err(error) = &cleaned {
            self.discard();
            let releases = self.log.lock().take_releases();
            // A release that is dropped logs that the session is being terminated.
            if is_disconnected(error) {
                for release in releases {
                    release.replied(Err(session_error(error.clone())));
                }
            }
        }
        cleaned
    }

    async fn recover_and_run_pending(&mut self) -> Result<(), DbErr> {
        match self.in_flight {
            InFlight::Nothing => {}
            // A dropped lock statement may wait for long or be granted; only termination is safe.
            InFlight::LockStatement { .. } => return Err(closed_error()),
            InFlight::UserStatement => self.drain_replies().await?,
            InFlight::TransactionControl(recovery) => {
                self.drain_replies().await?;
                self.recover(recovery).await?;
            }
        }
        loop {
            self.in_flight = InFlight::Nothing;
            if self.log.lock().is_clean() {
                return self.connection().map(drop);
            }
            self.drain_replies().await?;
            let cleanup = self.log.lock().pending_cleanup.pop_front();
            match cleanup {
                None => {}
                Some(Cleanup::Rollback(level)) => self.roll_back_level(level).await?,
                Some(Cleanup::Message(message, release)) => {
                    // If this future is dropped here, no later statement shows whether the message
                    // succeeded. So the session is terminated then.
                    self.in_flight = InFlight::LockStatement { awaited: None };
                    let sent = self.send(&message).await;
                    if let Some(release) = release {
                        release.replied(sent.clone().map_err(session_error));
                    }
                    // The next messages terminate the session if this one failed. If the session
                    // has ended already, none of them can be sent.
                    if let Err(error) = sent
                        && is_disconnected(&error)
                    {
                        self.in_flight = InFlight::Nothing;
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Compensates for a dropped future. All replies have been read.
    async fn recover(&mut self, recovery: Recovery) -> Result<(), DbErr> {
        match recovery {
            Recovery::RolledBack => Ok(()),
            Recovery::Begun(0) => self.roll_back_level(0).await,
            Recovery::Begun(level) => {
                self.in_flight = InFlight::TransactionControl(Recovery::RolledBack);
                // In a transaction that was aborted before, there is no savepoint, and this fails.
                let _ = self.send_rollback(level).await;
                Ok(())
            }
            Recovery::Committed(level) if self.is_no_op() => {
                // A failed commit leaves its transaction open. That of a savepoint does not fail.
                if level == 0 {
                    self.roll_back_level(level).await?;
                }
                Ok(())
            }
            Recovery::Committed(level) => {
                if self.is_aborted().await? {
                    self.drain_replies().await?;
                    self.roll_back_level(level).await?;
                }
                Ok(())
            }
        }
    }

    /// Rolls back the transactions from this level on. All replies have been read.
    async fn roll_back_level(&mut self, level: usize) -> Result<(), DbErr> {
        self.log.lock().truncate(level);
        self.in_flight = InFlight::TransactionControl(Recovery::RolledBack);
        let rolled_back = match self.send_rollback(level).await {
            // Without a transaction, this is a warning of PostgreSQL, but an error of SQLite.
            Err(_) if level == 0 && self.is_no_op() => Ok(()),
            rolled_back => rolled_back,
        };
        self.in_flight = InFlight::Nothing;
        if rolled_back.is_err() {
            // The session may still be in the transaction.
            self.log.lock().closed = true;
        }
        rolled_back
    }

    async fn send_begin(
        &mut self,
        level: usize,
        options: &TransactionOptions,
    ) -> Result<(), DbErr> {
        let sql = match self.connection()? {
            ClientConnection::Native(native) => return native.begin(*options).await,
            ClientConnection::Sqlite(_) => begin_text_of_sqlite(level, options),
            ClientConnection::Postgres { .. } => begin_text(level, options),
        };
        self.send(&sql).await
    }

    async fn send_commit(&mut self, level: usize, check: Option<&Script>) -> Result<(), DbErr> {
        let sql = match (level, self.connection()?) {
            (_, ClientConnection::Native(native)) => return native.commit().await,
            // SQLite rejects a commit without a transaction.
            (0, ClientConnection::Sqlite(_)) => "COMMIT".to_owned(),
            (0, ClientConnection::Postgres { .. }) => checked(check, "COMMIT"),
            // Without a check, the release itself fails if the savepoint is gone.
            (_, _) => release_savepoint(check, &savepoint(level)),
        };
        self.send(&sql).await
    }

    /// Rolls back the transaction, or else rolls back to the savepoint and removes it, which fails
    /// if its creation has failed.
    async fn send_rollback(&mut self, level: usize) -> Result<(), DbErr> {
        let sql = match (level, self.connection()?) {
            (_, ClientConnection::Native(native)) => return native.roll_back(level).await,
            (0, _) => "ROLLBACK".to_owned(),
            (_, _) => roll_back_savepoint(&savepoint(level)),
        };
        self.send(&sql).await
    }

    fn level_of(&self, id: TransactionId) -> Result<usize, DbErr> {
        let level = self.log.lock().level_of(id);
        level.ok_or_else(transaction_ended_error)
    }
}
