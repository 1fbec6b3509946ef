//! What the library's statements do, by their kind and not by their text.

use advisory_locking::session::{
    LockReply, Script, ScriptKind, Statement, StatementKind, TransactionContext,
};

use super::server::{Code, Level, Lock, Pid, Requested, Server, Ticket};

/// The savepoint around a wait inside a transaction.
const SAVEPOINT: &str = "advisory_locking";

/// What became of a batch at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Batched {
    Ran,
    /// When the wait has ended well, the batch goes on with [`Server::finish_batch`].
    Queued(Ticket),
}

impl Server {
    /// Runs a statement; none of them waits.
    pub(crate) fn query(&mut self, pid: Pid, statement: &Statement) -> Result<LockReply, Code> {
        let lock = Lock {
            key: statement.key(),
            mode: statement.mode(),
        };
        self.usable(pid)?;
        let began = self.transaction_began(pid);
        let answer = match statement.kind() {
            StatementKind::TryAcquire => {
                Some(self.request(pid, lock, Level::Session, false)? == Requested::Granted)
            }
            StatementKind::TryAcquireXact => {
                Some(self.request(pid, lock, Level::Transaction, false)? == Requested::Granted)
            }
            StatementKind::Release {
                pid: granted_to,
                transaction_began,
            } => {
                if granted_to == pid && transaction_began != Some(began) {
                    Some(self.unlock(pid, lock)?)
                } else {
                    None
                }
            }
            StatementKind::ReleaseIfHeld if self.session(pid).holds(lock) => {
                Some(self.unlock(pid, lock)?)
            }
            StatementKind::ReleaseIfHeld => None,
            StatementKind::IsHeld => Some(self.session(pid).holds(lock)),
            kind => panic!("the model does not know {kind:?}"),
        };
        Ok(LockReply {
            answer,
            pid,
            transaction_began: began,
        })
    }

    /// Begins a batch.
    pub(crate) fn batch(&mut self, pid: Pid, batch: &Script) -> Result<Batched, Code> {
        let lock = Lock {
            key: batch.key(),
            mode: batch.mode(),
        };
        match batch.kind() {
            ScriptKind::RevealSqlState => {
                if self.request(pid, lock, Level::Session, false)? == Requested::Granted {
                    self.unlock(pid, lock)?;
                }
                Ok(Batched::Ran)
            }
            ScriptKind::ReleaseOrTerminate {
                pid: granted_to,
                transaction_began,
                ..
            } => {
                self.release_or_end(pid, granted_to, transaction_began, lock);
                Ok(Batched::Ran)
            }
            ScriptKind::RollBackWait => {
                self.rollback_to(pid, SAVEPOINT)?;
                self.release_savepoint(pid, SAVEPOINT)?;
                Ok(Batched::Ran)
            }
            ScriptKind::Wait {
                in_transaction,
                place,
                ..
            } => {
                if place == TransactionContext::InTransaction {
                    self.savepoint(pid, SAVEPOINT)?;
                }
                let level = if in_transaction {
                    Level::Transaction
                } else {
                    Level::Session
                };
                match self.request(pid, lock, level, true)? {
                    Requested::Queued(ticket) => Ok(Batched::Queued(ticket)),
                    Requested::Granted | Requested::Busy => {
                        self.finish_batch(pid, batch)?;
                        Ok(Batched::Ran)
                    }
                }
            }
            kind => panic!("the model does not know {kind:?}"),
        }
    }

    /// The five messages of a guard that is dropped: none of them is waited for, and each runs whatever became of the others.
    fn release_or_end(&mut self, pid: Pid, granted_to: Pid, taken: Option<i64>, lock: Lock) {
        if !self.sessions.contains_key(&pid) {
            return;
        }
        let still_open = taken == Some(self.transaction_began(pid));
        // What is noted in a transaction goes with it.
        let noted = self.session(pid).frames.is_empty();
        let released = granted_to == pid && !still_open && self.unlock(pid, lock).is_ok() && noted;
        let _ = self.rollback(pid);
        if granted_to == pid && !released {
            self.terminate(pid);
        }
    }

    /// Runs what a batch does after its wait.
    pub(crate) fn finish_batch(&mut self, pid: Pid, batch: &Script) -> Result<(), Code> {
        match batch.kind() {
            ScriptKind::Wait {
                place: TransactionContext::InTransaction,
                ..
            } => self.release_savepoint(pid, SAVEPOINT),
            _ => Ok(()),
        }
    }
}
