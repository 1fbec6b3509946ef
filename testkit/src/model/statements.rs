//! The effect of the statements and scripts of the crate, by their kind and not by their text.

use advisory_locking::session::{
    Cell, LockReply, Row, Script, ServerSigns, Statement, StatementKind,
};
use advisory_locking::{LockMode, LockScope, RawLockKey};

use super::server::{Code, Held, Lock, Pid, Requested, Server, Ticket};

/// The savepoint around a wait inside a transaction.
const SAVEPOINT: &str = "advisory_locking";

/// The immediate result of a script.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScriptResult {
    Done,
    /// The script waits. After the grant it continues with [`Server::finish_script`].
    Queued(Ticket),
}

impl Server {
    /// Runs a statement. None of them waits.
    pub fn query(&mut self, pid: Pid, statement: &Statement) -> Result<Row, Code> {
        match statement {
            Statement::Lock { kind, key, mode } => {
                let reply = self.lock_statement(pid, *kind, *key, *mode)?;
                Ok(reply.into())
            }
            Statement::Batch(batch) => Ok(self.batch(pid, batch)?.into()),
            Statement::Report { key, with_waiters } => {
                self.usable(pid)?;
                let key = key.expect("the model reports one key");
                let texts = self.report(key, *with_waiters);
                Ok(Row::new([
                    Cell::Texts(texts),
                    Cell::Null,
                    Cell::Null,
                    Cell::Null,
                ]))
            }
            request => panic!("the model does not know {request:?}"),
        }
    }

    /// The texts of a report, in the columns of the library's statement.
    fn report(&self, key: RawLockKey, with_waiters: bool) -> Vec<Option<String>> {
        let columns = key.pg_locks();
        let row = |held: Held| {
            let mode = match held.mode {
                LockMode::Exclusive => "ExclusiveLock",
                LockMode::Shared => "ShareLock",
            };
            let mut row = vec![
                Some(columns.classid.to_string()),
                Some(columns.objid.to_string()),
                Some(columns.objsubid.to_string()),
                Some(mode.to_owned()),
                Some(held.granted.to_string()),
            ];
            row.resize(15, None);
            row[7] = Some(held.pid.to_string());
            row
        };
        let rows = self.held(key).into_iter();
        rows.filter(|held| with_waiters || held.granted)
            .flat_map(row)
            .collect()
    }

    fn lock_statement(
        &mut self,
        pid: Pid,
        kind: StatementKind,
        key: RawLockKey,
        mode: LockMode,
    ) -> Result<LockReply, Code> {
        let lock = Lock { key, mode };
        self.usable(pid)?;
        let began = self.transaction_began(pid);
        let answer = match kind {
            StatementKind::TryAcquire { scope, .. } => {
                Some(self.request(pid, lock, scope, false)? == Requested::Granted)
            }
            StatementKind::Release {
                pid: granted_to,
                transaction_began,
            } => {
                let outside = match transaction_began {
                    Some(granted_at) => granted_at != began && self.nothing_uncommitted(pid),
                    None => true,
                };
                if granted_to == pid && outside {
                    Some(self.unlock(pid, lock)?)
                } else {
                    None
                }
            }
            StatementKind::ReleaseIfHeld { pid: expected }
                if expected.is_none_or(|expected| expected == pid)
                    && self.session(pid).holds(lock) =>
            {
                Some(self.unlock(pid, lock)?)
            }
            StatementKind::ReleaseIfHeld { .. } => None,
            StatementKind::IsHeld => Some(self.session(pid).holds(lock)),
            // The model has no two-phase commit.
            StatementKind::IsHeldByPreparedTransaction => Some(false),
            kind => panic!("the model does not know {kind:?}"),
        };
        Ok(LockReply {
            answer,
            pid,
            transaction_began: began,
            server_signs: ServerSigns::NONE,
        })
    }

    /// Begins a script.
    pub fn script(&mut self, pid: Pid, script: &Script) -> Result<ScriptResult, Code> {
        match *script {
            Script::CheckTransaction {
                key,
                mode,
                transaction_began,
                in_savepoint,
            } => {
                self.usable(pid)?;
                let same = self.transaction_began(pid) == transaction_began;
                if same && (!in_savepoint || self.session(pid).holds(Lock { key, mode })) {
                    Ok(ScriptResult::Done)
                } else {
                    Err(self.fail(pid, "ZAL02"))
                }
            }
            Script::EndSnapshot => {
                self.usable(pid)?;
                Ok(ScriptResult::Done)
            }
            Script::RevealSqlState { key, mode } => {
                let lock = Lock { key, mode };
                if self.request(pid, lock, LockScope::Session, false)? == Requested::Granted {
                    self.unlock(pid, lock)?;
                }
                Ok(ScriptResult::Done)
            }
            Script::ReleaseOrTerminate {
                key,
                mode,
                pid: granted_to,
                transaction_began,
                ..
            } => {
                let lock = Lock { key, mode };
                self.release_or_terminate(pid, granted_to, transaction_began, lock);
                Ok(ScriptResult::Done)
            }
            Script::RollBackTransaction => {
                self.rollback(pid)?;
                Ok(ScriptResult::Done)
            }
            Script::RollBackWait => {
                self.rollback_to(pid, SAVEPOINT)?;
                self.release_savepoint(pid, SAVEPOINT)?;
                Ok(ScriptResult::Done)
            }
            Script::Wait {
                key,
                mode,
                scope,
                in_transaction,
                ..
            } => {
                if in_transaction {
                    self.savepoint(pid, SAVEPOINT)?;
                }
                match self.request(pid, Lock { key, mode }, scope, true)? {
                    Requested::Queued(ticket) => Ok(ScriptResult::Queued(ticket)),
                    Requested::Granted | Requested::Busy => {
                        self.finish_script(pid, script)?;
                        Ok(ScriptResult::Done)
                    }
                }
            }
            kind => panic!("the model does not know {kind:?}"),
        }
    }

    /// Runs the five messages of a guard that is dropped. No task waits for a reply, and each
    /// message runs whatever the others returned.
    fn release_or_terminate(&mut self, pid: Pid, granted_to: Pid, began: Option<i64>, lock: Lock) {
        if !self.sessions.contains_key(&pid) {
            return;
        }
        let still_open = began.is_some_and(|began| {
            began == self.transaction_began(pid) || !self.nothing_uncommitted(pid)
        });
        // A setting that is set in a transaction is lost with it.
        let recorded = self.session(pid).frames.is_empty();
        let released =
            granted_to == pid && !still_open && self.unlock(pid, lock).is_ok() && recorded;
        let _ = self.rollback(pid);
        if granted_to == pid && !released {
            self.terminate(pid);
        }
    }

    /// Runs the statements of a script after its wait.
    pub fn finish_script(&mut self, pid: Pid, script: &Script) -> Result<(), Code> {
        match *script {
            Script::Wait {
                in_transaction: true,
                ..
            } => self.release_savepoint(pid, SAVEPOINT),
            _ => Ok(()),
        }
    }
}
