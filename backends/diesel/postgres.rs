//! `PgConnection`.

use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;

use super::prepared::{self, Prepared, with_prepared};
use super::rounds::{PreparedRound, round_row, with_round};
use super::session_error;
use super::single::{PreparedStep, with_step};
use crate::backends::postgres::{COMMIT, TerminateSequence};
use crate::session::{
    Backend, BatchReply, LockBatch, LockReply, LockSession, Script, SessionError, SingleOp,
    Statement, TransactionState,
};

impl<const SHAPE: u8> RunQueryDsl<PgConnection> for Prepared<SHAPE> {}

impl<const SHAPE: u8> RunQueryDsl<PgConnection> for PreparedRound<SHAPE> {}

impl<const SHAPE: u8> RunQueryDsl<PgConnection> for PreparedStep<SHAPE> {}

impl LockSession for PgConnection {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        super::blocking::transaction_state(self)
    }

    fn session_begin(&mut self) -> Result<(), SessionError> {
        super::blocking::begin(self)
    }

    fn session_commit(&mut self) -> Result<(), SessionError> {
        if super::blocking::transaction_state(self) != TransactionState::open(1) {
            return super::blocking::commit(self);
        }
        // Diesel follows the state that the server tells, so it knows when this has ended the transaction.
        self.batch_execute(COMMIT).map_err(|error| {
            if super::blocking::transaction_state(self).is_open() {
                // The commit's error is the one to report.
                let _ = super::blocking::rollback(self);
            }
            session_error(error)
        })
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        super::blocking::rollback(self)
    }

    fn session_query(&mut self, statement: &Statement) -> Result<LockReply, SessionError> {
        let row = with_prepared!(statement, prepared => prepared.get_result(self));
        row.map(prepared::row).map_err(session_error)
    }

    fn session_execute(&mut self, batch: &Script) -> Result<(), SessionError> {
        self.batch_execute(&batch.sql()).map_err(session_error)
    }

    fn session_execute_batch(&mut self, round: &LockBatch) -> Result<BatchReply, SessionError> {
        let columns = with_round!(round, prepared => prepared.get_result(self));
        columns.map(round_row).map_err(session_error)
    }

    fn session_execute_single(&mut self, step: &SingleOp) -> Result<Option<bool>, SessionError> {
        let answer = with_step!(step, prepared => prepared.get_result(self));
        answer.map_err(session_error)
    }

    /// Marking the transaction manager alone would not do: any statement that goes through repairs the mark. A session that the
    /// server has ended does not come back.
    fn session_terminate(&mut self) {
        let (mut sequence, mut last) = (TerminateSequence::default(), None);
        while let Some(sql) = sequence.next(last) {
            last = Some(self.batch_execute(sql).map_err(session_error));
        }
        super::blocking::manager_status(self).set_in_error();
    }
}
