//! Transactions, savepoints and clean-up on a pinned connection.
//!
//! # Implementation details
//!
//! sqlx 0.9.0 has one transaction depth for the session, and rolls a dropped transaction back at
//! the next statement. It loses the depth when a `begin` is dropped in flight. So this module sends
//! `BEGIN`, `SAVEPOINT`, `COMMIT`, `RELEASE` and `ROLLBACK` itself.
//!
//! * Each statement sets [`InFlight`] before it is sent. If its future is dropped, or if a begin or
//!   commit fails, [`clean_up`] waits for the reply and rolls back what is left.
//! * A transaction that is dropped puts its rollback into the transaction log. [`clean_up`] runs it
//!   before any other statement.
//!
//! A user therefore never sees a transaction that a dropped future began, and a dropped commit or
//! rollback has ended its transaction.
//!
//! [`clean_up`]: PinnedState::clean_up

use std::mem;

use sea_orm::{DbErr, SqliteTransactionMode, TransactionOptions};

use super::error::{
    closed_error, is_aborted, is_disconnected, is_other_transaction, session_error,
};
use super::state::{ClientConnection, InFlight, PinnedState};
use super::transaction_log::{Cleanup, TransactionId, TransactionLogInner};
use crate::backends::postgres::{begin, begin_text, commit_text, rollback_text};
use crate::backends::sqlx::statements::fetch_unprepared;
use crate::session::{Row, Script, Statement};

/// Returns the name of the savepoint at a level. `None`: at level 0 is the transaction.
///
/// The level makes it unique among the open savepoints of this crate.
fn savepoint(level: usize) -> Option<String> {
    (level > 0).then(|| format!("advisory_locking_{level}"))
}

/// Returns the text that begins a transaction with these modes, or a savepoint in one.
fn begin_with_modes(level: usize, modes: &str) -> String {
    let begin = begin_text(savepoint(level).as_deref());
    match level {
        _ if modes.is_empty() => begin,
        0 => format!("{begin} {modes}"),
        // As SeaORM does: the server rejects the modes that a savepoint cannot have.
        _ => format!("{begin}; SET TRANSACTION {modes}"),
    }
}

/// Returns the modes of a transaction of PostgreSQL.
fn modes_of_postgres(options: &TransactionOptions) -> String {
    let isolation = options.isolation_level;
    let isolation = isolation.map(|isolation| format!("ISOLATION LEVEL {isolation}"));
    let access = options.access_mode.map(|access| access.to_string());
    let modes: Vec<_> = isolation.into_iter().chain(access).collect();
    modes.join(", ")
}

/// Returns the mode of a transaction of SQLite.
fn mode_of_sqlite(level: usize, options: &TransactionOptions) -> &'static str {
    // As with SeaORM, it has no effect on a savepoint.
    let mode = options.sqlite_transaction_mode.as_ref();
    let mode = mode.filter(|_| level == 0);
    mode.map_or("", SqliteTransactionMode::sqlite_keyword)
}

impl PinnedState {
    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(
        &mut self,
        options: &TransactionOptions,
    ) -> Result<TransactionId, DbErr> {
        let level = self.clean_up(|log| log.open.len()).await?;
        self.in_flight = InFlight::Begin(level);
        let begun = self.send_begin(level, options).await;
        let begun = begun.and_then(|()| self.log.lock().push(level));
        // A `BEGIN` that fails has begun nothing. A savepoint exists if its options failed.
        if begun.is_ok() || level == 0 {
            self.in_flight = InFlight::Nothing;
        } else {
            // The caller gets the error of the begin.
            drop(self.clean_up(|_| ()).await);
        }
        begun
    }

    /// Begins a transaction and runs a lock statement in it, in one message if it is the outermost.
    ///
    /// If `BEGIN` fails, the server does not run the statement.
    pub(super) async fn begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> Result<(TransactionId, Result<Row, DbErr>), DbErr> {
        if self.clean_up(|log| log.open.len()).await? > 0 {
            let id = self.begin(&TransactionOptions::default()).await?;
            return Ok((id, self.run_statement(statement).await));
        }
        // Behind a pooler, each transaction may run in another session.
        self.log.lock().pid = None;
        self.in_flight = InFlight::Begin(0);
        let sql = format!("{}; {}", begin(), statement.simple_sql());
        let fetched = fetch_unprepared(self.postgres()?, sql).await;
        match self.finish_statement(statement, fetched) {
            // These codes show that a transaction was open before. Any other error may be that of
            // `BEGIN` or of the statement. A rollback ends the transaction in both cases.
            Err(error) if is_aborted(&error) || is_other_transaction(&error) => Err(error),
            row => Ok((self.log.lock().push(0)?, row)),
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
        self.log.lock().drop_inner(id);
        // Before the commit is sent: a dropped commit, too, has ended the transaction for its user.
        let level = self.clean_up(|log| log.end(id)).await??;
        self.in_flight = InFlight::Commit(level);
        let committed = self.send_commit(level, check).await;
        match committed {
            Ok(()) => self.in_flight = InFlight::Nothing,
            // The caller gets the error of the commit. If the clean-up fails, the connection is
            // closed.
            Err(_) => drop(self.clean_up(|_| ()).await),
        }
        committed
    }

    /// Rolls a transaction back with those inside it, or does nothing if it has ended.
    pub(super) async fn roll_back(&mut self, id: TransactionId) -> Result<(), DbErr> {
        self.log.lock().drop_transaction(id);
        self.clean_up(|_| ()).await
    }

    /// Cleans up after the statement in flight, and runs the pending clean-up. Then calls `then`,
    /// before another thread can add to the clean-up.
    ///
    /// Discards the connection on failure: its transaction is unknown then, so no later statement
    /// may run.
    pub(super) async fn clean_up<T>(
        &mut self,
        then: impl FnOnce(&mut TransactionLogInner) -> T,
    ) -> Result<T, DbErr> {
        let cleaned = self.recover_and_run_pending(then).await;
        if let Err(error) = &cleaned {
            self.discard();
            let pending = mem::take(&mut self.log.lock().pending_cleanup);
            for cleanup in pending {
                // A release that is dropped logs that the session is being terminated.
                if let Cleanup::Message(_, Some(release)) = cleanup
                    && is_disconnected(error)
                {
                    release.replied(Err(session_error(error.clone())));
                }
            }
        }
        cleaned
    }

    async fn recover_and_run_pending<T>(
        &mut self,
        then: impl FnOnce(&mut TransactionLogInner) -> T,
    ) -> Result<T, DbErr> {
        if let InFlight::LockStatement(_) = self.in_flight {
            // It may wait for long or be granted; only termination is safe.
            return Err(closed_error());
        }
        loop {
            self.drain_replies().await?;
            match self.in_flight {
                InFlight::Begin(level) => {
                    let rolled_back = self.roll_back_level(level).await;
                    // In a transaction that was aborted before, the savepoint does not exist.
                    if level == 0 {
                        rolled_back?;
                    }
                }
                InFlight::Commit(level) => self.roll_back_failed_commit(level).await?,
                InFlight::Nothing | InFlight::Reply | InFlight::LockStatement(_) => {
                    self.in_flight = InFlight::Nothing;
                    let cleanup = {
                        let mut log = self.log.lock();
                        match log.pending_cleanup.pop_front() {
                            Some(cleanup) => cleanup,
                            None => return Ok(then(&mut log)),
                        }
                    };
                    self.run(cleanup).await?;
                }
            }
        }
    }

    /// Runs one pending clean-up. All replies have been read.
    async fn run(&mut self, cleanup: Cleanup) -> Result<(), DbErr> {
        let (message, release) = match cleanup {
            Cleanup::Rollback(level) => return self.roll_back_level(level).await,
            Cleanup::Message(message, release) => (message, release),
        };
        // If this future is dropped here, no later statement shows whether the message succeeded.
        // So the session is terminated then.
        self.in_flight = InFlight::LockStatement(None);
        let sent = match release {
            Some(release) => self.send_release(&message, release).await,
            None => self.send(&message).await.map(drop),
        };
        self.in_flight = InFlight::Nothing;
        match sent {
            // None of the next messages can be sent.
            Err(error) if is_disconnected(&error) => Err(error),
            // They terminate the session if this one failed.
            _ => Ok(()),
        }
    }

    /// Rolls back the transaction at this level if its commit has failed. All replies have been
    /// read.
    async fn roll_back_failed_commit(&mut self, level: usize) -> Result<(), DbErr> {
        let failed = if self.is_no_op() {
            // A failed commit leaves its transaction open. That of a savepoint does not fail.
            level == 0
        } else {
            // An empty select list returns one row without columns, outside an aborted transaction.
            match self.send("SELECT").await {
                Ok(_) => false,
                Err(error) if is_aborted(&error) => true,
                Err(error) => return Err(error),
            }
        };
        self.drain_replies().await?;
        self.in_flight = InFlight::Reply;
        if failed {
            self.roll_back_level(level).await?;
        }
        Ok(())
    }

    /// Rolls back the transactions from this level on. All replies have been read.
    ///
    /// Fails if the savepoint does not exist.
    async fn roll_back_level(&mut self, level: usize) -> Result<(), DbErr> {
        self.in_flight = InFlight::Reply;
        let rolled_back = match self.connection()? {
            ClientConnection::Native(native) => native.roll_back(level).await,
            ClientConnection::Sqlite(_) | ClientConnection::Postgres(..) => {
                let sql = rollback_text(savepoint(level).as_deref());
                self.send(&sql).await.map(drop)
            }
        };
        match rolled_back {
            // Without a transaction, this is a warning of PostgreSQL, but an error of SQLite.
            Err(_) if level == 0 && self.is_no_op() => Ok(()),
            rolled_back => rolled_back,
        }
    }

    async fn send_begin(
        &mut self,
        level: usize,
        options: &TransactionOptions,
    ) -> Result<(), DbErr> {
        let sql = match self.connection()? {
            ClientConnection::Native(native) => return native.begin(*options).await,
            ClientConnection::Sqlite(_) => begin_with_modes(level, mode_of_sqlite(level, options)),
            ClientConnection::Postgres(..) => begin_with_modes(level, &modes_of_postgres(options)),
        };
        self.send(&sql).await.map(drop)
    }

    async fn send_commit(&mut self, level: usize, check: Option<&Script>) -> Result<(), DbErr> {
        let sql = match (level, self.connection()?) {
            (_, ClientConnection::Native(native)) => return native.commit().await,
            // SQLite rejects a commit without a transaction.
            (0, ClientConnection::Sqlite(_)) => "COMMIT".to_owned(),
            (_, _) => commit_text(savepoint(level).as_deref(), check),
        };
        self.send(&sql).await.map(drop)
    }
}
