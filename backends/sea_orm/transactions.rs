//! The transactions on a pinned connection.

use sea_orm::{DbErr, TransactionOptions};

use super::error::is_aborted;
use super::pinned::{InFlight, PinnedState, TransactionId, transaction_ended_error};
use crate::backends::postgres::COMMIT;

/// What to do about the begin or end of a transaction that was dropped in flight, once it has surely run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recovery {
    /// It was begun at this level, and nobody has it.
    Begun(usize),
    /// It was committed at this level, or could not be.
    Committed(usize),
    /// It was rolled back.
    RolledBack,
}

/// The name of the savepoint at a level, 1 being the first inside a transaction.
pub(super) fn savepoint(level: usize) -> String {
    format!("advisory_locking_{level}")
}

/// The text that begins a transaction, or a savepoint in one.
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
        // As SeaORM does: the server says what of it a savepoint may have.
        _ => format!("SAVEPOINT {}; SET TRANSACTION {modes}", savepoint(level)),
    }
}

impl PinnedState {
    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(
        &mut self,
        options: &TransactionOptions,
    ) -> Result<TransactionId, DbErr> {
        let level = loop {
            self.drain_after_error().await?;
            let level = {
                let log = self.log.inner();
                log.is_clean().then(|| log.open.len())
            };
            match level {
                Some(level) => break level,
                // Another transaction was dropped just now.
                None => self.run_cleanup().await?,
            }
        };
        if level == 0 {
            // Behind a pooler, each transaction may be in another session.
            self.pid = None;
        }
        self.in_flight = InFlight::TransactionControl(Recovery::Begun(level));
        let begun = self.send(&begin_text(level, options)).await;
        if begun.is_err() && level > 0 {
            // If it was the options that failed, the savepoint is there, and the transaction aborted to it.
            self.drain_after_error().await?;
            self.in_flight = InFlight::TransactionControl(Recovery::RolledBack);
            let _ = self.roll_back_to_savepoint(level).await;
        }
        self.in_flight = InFlight::Nothing;
        begun?;
        let id = TransactionId::next();
        if self.log.inner().push(level, id) {
            return Ok(id);
        }
        // The one around it was dropped while this one began, and its rollback is owed.
        self.in_flight = InFlight::TransactionControl(Recovery::RolledBack);
        let undone = self.roll_back_to_savepoint(level).await;
        self.in_flight = InFlight::Nothing;
        undone.and(Err(transaction_ended_error()))
    }

    /// Commits a transaction, and rolls back what is open in it; if that fails, it is rolled back.
    pub(super) async fn commit(&mut self, id: TransactionId) -> Result<(), DbErr> {
        self.drain_after_error().await?;
        let level = self.level_of(id).ok_or_else(transaction_ended_error)?;
        if self.log.inner().open.len() > level + 1 {
            // Nobody has committed what is open in it.
            self.roll_back_level(level + 1).await?;
        }
        self.truncate(level);
        self.in_flight = InFlight::TransactionControl(Recovery::Committed(level));
        let committed = match level {
            0 => self.send(COMMIT).await,
            _ => {
                self.send(&format!("RELEASE SAVEPOINT {}", savepoint(level)))
                    .await
            }
        };
        if let Err(error) = &committed
            // The outermost is rolled back by the server, unless it had been aborted before.
            && (level > 0 || is_aborted(error))
        {
            self.drain_after_error().await?;
            self.roll_back_level(level).await?;
        }
        self.in_flight = InFlight::Nothing;
        committed
    }

    /// Rolls a transaction back, and what is open in it. Does nothing if it is over.
    pub(super) async fn roll_back(&mut self, id: TransactionId) -> Result<(), DbErr> {
        self.drain_after_error().await?;
        match self.level_of(id) {
            Some(level) => self.roll_back_level(level).await,
            None => Ok(()),
        }
    }

    /// Rolls back what is open from this level on. Every answer has been read.
    pub(super) async fn roll_back_level(&mut self, level: usize) -> Result<(), DbErr> {
        self.truncate(level);
        self.in_flight = InFlight::TransactionControl(Recovery::RolledBack);
        let undone = match level {
            0 => self.send("ROLLBACK").await,
            _ => self.roll_back_to_savepoint(level).await,
        };
        self.in_flight = InFlight::Nothing;
        if undone.is_err() {
            // In what transaction the session is now, nobody knows.
            self.log.inner().closed = true;
        }
        undone
    }

    /// Whether a transaction is open.
    pub(super) fn level_of(&self, id: TransactionId) -> Option<usize> {
        self.log.inner().level_of(id)
    }

    /// The innermost transaction.
    pub(super) fn innermost(&self) -> Option<TransactionId> {
        self.log.inner().open.last().copied()
    }

    /// Does what a dropped future did not do any more. Every answer has been read.
    pub(super) async fn recover(&mut self, recovery: Recovery) -> Result<(), DbErr> {
        match recovery {
            Recovery::RolledBack => Ok(()),
            Recovery::Begun(0) => self.roll_back_level(0).await,
            Recovery::Begun(level) => {
                self.in_flight = InFlight::TransactionControl(Recovery::RolledBack);
                // It failed if the transaction was aborted before; then there is nothing to undo.
                let _ = self.roll_back_to_savepoint(level).await;
                Ok(())
            }
            Recovery::Committed(level) => {
                if self.is_aborted().await? {
                    self.drain_after_error().await?;
                    self.roll_back_level(level).await?;
                }
                Ok(())
            }
        }
    }

    fn truncate(&mut self, level: usize) {
        self.log.inner().truncate(level);
    }
}
