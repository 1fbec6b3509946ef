//! Many locks in one statement, and the tokens.

use std::collections::BTreeMap;

use advisory_locking::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, TokenSource,
};

use super::server::{Code, Level, Lock, Pid, Requested, Server};

/// Where tokens come from.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    last_transaction: i64,
    sequences: BTreeMap<String, Sequence>,
}

#[derive(Debug)]
struct Sequence {
    only_grows: bool,
    last: i64,
}

impl Server {
    /// `CREATE SEQUENCE`; with a cache, a cycle or a negative increment, it does not only grow.
    pub(crate) fn create_sequence(&mut self, name: &str, only_grows: bool) {
        let sequence = Sequence {
            only_grows,
            last: 0,
        };
        self.tokens.sequences.insert(name.to_owned(), sequence);
    }

    /// Runs a round. What was taken before one of its steps fails stays taken.
    pub(crate) fn round(&mut self, pid: Pid, round: &LockBatch) -> Result<BatchReply, Code> {
        self.usable(pid)?;
        let meant = round.pid() == 0 || round.pid() == pid;
        let (answers, token) = match round.mode() {
            BatchMode::Execute => self.serve(pid, meant, round)?,
            BatchMode::Compensate if meant => (self.undo(pid, round.ops())?, None),
            BatchMode::Compensate => (Vec::new(), None),
            kind => panic!("the model does not know {kind:?}"),
        };
        Ok(BatchReply {
            answers: (!answers.is_empty()).then_some(answers),
            token,
            pid,
        })
    }

    fn serve(
        &mut self,
        pid: Pid,
        meant: bool,
        round: &LockBatch,
    ) -> Result<(Vec<Option<i64>>, Option<i64>), Code> {
        if !meant || round.ops().is_empty() {
            return Ok((Vec::new(), None));
        }
        let only_grows = match round.sequence() {
            None => None,
            Some(name) => match self.tokens.sequences.get(name) {
                None => return Err(self.fail(pid, "42P01")),
                Some(sequence) => Some(sequence.only_grows),
            },
        };
        let mut served = Vec::new();
        for step in round.ops() {
            let fenced = matches!(
                step.kind(),
                LockOpKind::Acquire { with_token: true } | LockOpKind::IssueToken
            );
            let may_take = !fenced || only_grows.unwrap_or(true);
            served.push((fenced, may_take && self.step(pid, step)?));
        }
        // All tokens are drawn after the last grant.
        let draws = served.iter().any(|(fenced, yes)| *fenced && *yes);
        match round.tokens() {
            TokenSource::Sequence(name) => {
                let sequence = self.tokens.sequences.get_mut(&**name);
                let sequence = sequence.expect("it was found before");
                let answer = |(fenced, yes)| match (fenced, yes) {
                    (_, false) => None,
                    (false, true) => Some(1),
                    (true, true) => {
                        sequence.last += 1;
                        Some(sequence.last)
                    }
                };
                let answers = served.into_iter().map(answer).collect();
                Ok((answers, only_grows.map(i64::from)))
            }
            _ => {
                self.tokens.last_transaction += i64::from(draws);
                let token = draws.then_some(self.tokens.last_transaction);
                let answers = served.into_iter().map(|(_, yes)| yes.then_some(1));
                Ok((answers.collect(), token))
            }
        }
    }

    fn step(&mut self, pid: Pid, step: &LockOp) -> Result<bool, Code> {
        let lock = lock_of(step);
        match step.kind() {
            LockOpKind::Acquire { .. } => {
                Ok(self.request(pid, lock, Level::Session, false)? == Requested::Granted)
            }
            LockOpKind::Release => self.unlock(pid, lock),
            LockOpKind::IssueToken => Ok(true),
            kind => panic!("the model does not know {kind:?}"),
        }
    }

    fn undo(&mut self, pid: Pid, steps: &[LockOp]) -> Result<Vec<Option<i64>>, Code> {
        // What is shown is what was held before the first is given back.
        let shown = |step: &LockOp| (lock_of(step), self.holds(pid, lock_of(step)));
        let steps: Vec<_> = steps.iter().map(shown).collect();
        let undo = |(lock, shown)| {
            let yes = shown && self.unlock(pid, lock)?;
            Ok(yes.then_some(1))
        };
        steps.into_iter().map(undo).collect()
    }
}

fn lock_of(step: &LockOp) -> Lock {
    Lock {
        key: step.key(),
        mode: step.mode(),
    }
}
