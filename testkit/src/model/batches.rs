//! Batches of lock operations, and fencing tokens.

use std::collections::BTreeMap;

use advisory_locking::LockScope;
use advisory_locking::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, ServerSigns, TokenSource,
};

use super::server::{Code, Lock, Pid, Requested, Server};

/// The sources of fencing tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    last_transaction: i64,
    sequences: BTreeMap<String, Sequence>,
}

#[derive(Debug)]
struct Sequence {
    only_grows: bool,
    last: i64,
}

impl Server {
    /// `CREATE SEQUENCE`. `only_grows` is false with a cache, a cycle or a negative increment.
    pub fn create_sequence(&mut self, name: &str, only_grows: bool) {
        let sequence = Sequence {
            only_grows,
            last: 0,
        };
        self.tokens.sequences.insert(name.to_owned(), sequence);
    }

    /// Runs a batch. Locks that were acquired before one of its operations fails stay acquired.
    pub(super) fn batch(&mut self, pid: Pid, batch: &LockBatch) -> Result<BatchReply, Code> {
        self.usable(pid)?;
        let expected = batch.pid() == 0 || batch.pid() == pid;
        let (answers, token) = match batch.mode() {
            BatchMode::Execute => self.execute_ops(pid, expected, batch)?,
            BatchMode::Compensate if expected => (self.compensate(pid, batch.ops())?, None),
            BatchMode::Compensate => (Vec::new(), None),
            kind => panic!("the model does not know {kind:?}"),
        };
        Ok(BatchReply {
            answers: (!answers.is_empty()).then_some(answers),
            token,
            pid,
            server_signs: ServerSigns::NONE,
        })
    }

    fn execute_ops(
        &mut self,
        pid: Pid,
        expected: bool,
        batch: &LockBatch,
    ) -> Result<(Vec<Option<i64>>, Option<i64>), Code> {
        if !expected || batch.ops().is_empty() {
            return Ok((Vec::new(), None));
        }
        let only_grows = match batch.tokens() {
            TokenSource::Sequence(name) => match self.tokens.sequences.get(&**name) {
                None => return Err(self.fail(pid, "42P01")),
                Some(sequence) => Some(sequence.only_grows),
            },
            _ => None,
        };
        let mut results = Vec::new();
        for op in batch.ops() {
            let with_token = matches!(
                op.kind(),
                LockOpKind::Acquire { with_token: true } | LockOpKind::IssueToken
            );
            let may_acquire = !with_token || only_grows.unwrap_or(true);
            results.push((with_token, may_acquire && self.run_op(pid, op)?));
        }
        // All tokens are issued after the last grant.
        let issues_token = results
            .iter()
            .any(|(with_token, granted)| *with_token && *granted);
        match batch.tokens() {
            TokenSource::Sequence(name) => {
                let sequence = self.tokens.sequences.get_mut(&**name);
                let sequence = sequence.expect("it was found before");
                let answer = |(with_token, granted)| match (with_token, granted) {
                    (_, false) => None,
                    (false, true) => Some(1),
                    (true, true) => {
                        sequence.last += 1;
                        Some(sequence.last)
                    }
                };
                let answers = results.into_iter().map(answer).collect();
                Ok((answers, only_grows.map(i64::from)))
            }
            _ => {
                self.tokens.last_transaction += i64::from(issues_token);
                let token = issues_token.then_some(self.tokens.last_transaction);
                let answers = results.into_iter().map(|(_, granted)| granted.then_some(1));
                Ok((answers.collect(), token))
            }
        }
    }

    fn run_op(&mut self, pid: Pid, op: &LockOp) -> Result<bool, Code> {
        let lock = lock_of(op);
        match op.kind() {
            LockOpKind::Acquire { .. } => {
                Ok(self.request(pid, lock, LockScope::Session, false)? == Requested::Granted)
            }
            LockOpKind::Release => self.unlock(pid, lock),
            LockOpKind::IssueToken => Ok(true),
            kind => panic!("the model does not know {kind:?}"),
        }
    }

    fn compensate(&mut self, pid: Pid, ops: &[LockOp]) -> Result<Vec<Option<i64>>, Code> {
        // The server reads `pg_locks` before it releases the first lock.
        let shown = |op: &LockOp| (lock_of(op), self.holds(pid, lock_of(op)));
        let ops: Vec<_> = ops.iter().map(shown).collect();
        let undo = |(lock, shown)| {
            let yes = shown && self.unlock(pid, lock)?;
            Ok(yes.then_some(1))
        };
        ops.into_iter().map(undo).collect()
    }
}

fn lock_of(op: &LockOp) -> Lock {
    Lock {
        key: op.key(),
        mode: op.mode(),
    }
}
