//! A blocking client of the model.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use advisory_locking::session::{
    Backend, BatchReply, LockReply, LockSession, Row, Script, ServerSigns, SessionError, SqlState,
    Statement, StatementKind, TransactionState,
};
use advisory_locking::{LockKey, RawLockKey};

use super::fault::{ClientPanic, Fault, Faults};
use super::server::{Code, Held, Pid, Server, Ticket};
use super::statements::ScriptResult;

/// After this long a wait looks for a deadlock; PostgreSQL's default is a second.
const DEADLOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// A server that threads share.
#[derive(Clone, Debug, Default)]
pub struct Model(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    server: Mutex<Server>,
    changed: Condvar,
}

impl Model {
    /// A session whose client shows the server's codes.
    pub fn connect(&self) -> ModelSession {
        let pid = self.run(Server::connect);
        ModelSession {
            model: self.clone(),
            pid,
            depth: 0,
            test: false,
            broken: false,
            hides_codes: false,
            prepared: BTreeSet::new(),
            faults: Faults::default(),
        }
    }

    /// Does something to the server, and lets all who wait look what became of them.
    pub fn run<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        let result = act(&mut self.server());
        self.0.changed.notify_all();
        result
    }

    pub fn held(&self, key: &LockKey) -> Vec<Held> {
        self.held_in(key.raw())
    }

    fn held_in(&self, key: RawLockKey) -> Vec<Held> {
        self.server().held(key)
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.0.server.lock().expect("the model did not panic")
    }

    /// Sleeps until the wait has ended.
    fn wait(&self, ticket: Ticket, limit: Option<Duration>) -> Result<(), Code> {
        let began = Instant::now();
        let mut looked = false;
        let mut server = self.server();
        loop {
            if let Some(ended) = server.ended(ticket) {
                return ended;
            }
            let waited = began.elapsed();
            if limit.is_some_and(|limit| waited >= limit) {
                server.expire(ticket);
                self.0.changed.notify_all();
            } else if !looked && waited >= DEADLOCK_TIMEOUT {
                server.check_deadlock(ticket);
                looked = true;
                self.0.changed.notify_all();
            } else {
                let left = |until: Duration| until.saturating_sub(waited);
                let pause = match (limit, looked) {
                    (None, true) => Duration::from_secs(3600),
                    (None, false) => left(DEADLOCK_TIMEOUT),
                    (Some(limit), true) => left(limit),
                    (Some(limit), false) => left(limit).min(left(DEADLOCK_TIMEOUT)),
                };
                let changed = self.0.changed.wait_timeout(server, pause);
                server = changed.expect("the model did not panic").0;
            }
        }
    }
}

/// One connection: a session of the server, and what its client knows.
#[derive(Debug)]
pub struct ModelSession {
    model: Model,
    pid: Pid,
    depth: u32,
    test: bool,
    broken: bool,
    /// As Diesel does: a code is shown only by the statements that put it in the constraint name.
    pub hides_codes: bool,
    /// The numbers of the statements that the client has prepared.
    prepared: BTreeSet<u8>,
    pub faults: Faults,
}

impl ModelSession {
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns whether the session is alive.
    pub fn is_alive(&self) -> bool {
        self.model.server().sessions.contains_key(&self.pid)
    }

    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Ends the session and marks the connection as broken.
    pub fn terminate(&mut self) {
        self.model.run(|server| server.terminate(self.pid));
        self.broken = true;
    }

    /// Opens a test framework's transaction.
    pub fn begin_test(&mut self) -> Result<(), Code> {
        self.test = true;
        self.model.run(|server| server.begin(self.pid))
    }

    fn request<T>(
        &mut self,
        shows_code: bool,
        act: impl FnOnce(&mut Self) -> Result<T, Code>,
    ) -> Result<T, SessionError> {
        let pid = self.pid;
        if self.faults.do_others_leave() {
            self.model.run(|server| server.terminate_others(pid));
        }
        let result = match self.faults.next_fault() {
            None => act(self),
            Some(Fault::Refuse(code)) => Err(self.model.run(|server| server.fail(pid, code))),
            Some(Fault::DoneButReported(code)) => {
                act(self).and_then(|_| Err(self.model.run(|server| server.fail(pid, code))))
            }
            Some(Fault::LostReply) => {
                let _ = act(self);
                self.model.run(|server| server.terminate(pid));
                Err("08006")
            }
            Some(Fault::Terminated) => {
                self.model.run(|server| server.terminate(pid));
                Err("57P01")
            }
            // A query answers it.
            Some(Fault::Null) => act(self),
            // Not `panic!`, which would print.
            Some(Fault::Panics) => resume_unwind(Box::new(ClientPanic)),
            Some(Fault::DoneButPanics) => {
                let _ = act(self);
                resume_unwind(Box::new(ClientPanic))
            }
        };
        result.map_err(|code| {
            let gone = !self.is_alive();
            // The code of a check is in its constraint name.
            let shown = shows_code || !self.hides_codes || code == "ZAL02";
            SessionError::new(format!("the model's error {code}"))
                .with_code(SqlState::new(code).filter(|_| shown))
                .with_disconnected(gone)
        })
    }

    fn transaction(
        &mut self,
        act: impl FnOnce(&mut Server, Pid, &str) -> Result<(), Code>,
    ) -> Result<(), SessionError> {
        let name = format!("depth_{}", self.depth);
        self.request(false, |session| {
            let pid = session.pid;
            session.model.run(|server| act(server, pid, &name))
        })
    }

    /// After a `BEGIN` or a `COMMIT` that failed, no transaction is open; or the session has ended.
    fn no_transaction(&self, outermost: bool) {
        if outermost {
            let _ = self.model.run(|server| server.rollback(self.pid));
        }
    }

    /// Returns whether the client's next transaction is the server's outermost.
    const fn is_outermost(&self, depth: u32) -> bool {
        depth == 0 && !self.test
    }

    fn run_script(&self, script: &Script) -> Result<(), Code> {
        let pid = self.pid;
        match self.model.run(|server| server.script(pid, script))? {
            ScriptResult::Done => Ok(()),
            ScriptResult::Queued(ticket) => {
                let limit = match *script {
                    Script::Wait { limit_ms, .. } if limit_ms > 0 => {
                        Some(Duration::from_millis(u64::from(limit_ms.unsigned_abs())))
                    }
                    _ => None,
                };
                self.model.wait(ticket, limit)?;
                self.model.run(|server| server.finish_script(pid, script))
            }
        }
    }
}

/// A reply whose first column is null, as if the lock function had not been called.
fn null_row(statement: &Statement, pid: Pid) -> Row {
    match statement {
        Statement::Batch(_) => Row::from(BatchReply {
            answers: None,
            token: None,
            pid,
            server_signs: ServerSigns::NONE,
        }),
        _ => Row::from(LockReply {
            answer: None,
            pid,
            transaction_began: 0,
            server_signs: ServerSigns::NONE,
        }),
    }
}

impl LockSession for ModelSession {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        match (self.broken, self.test) {
            (true, _) => TransactionState::broken(),
            (false, true) => TransactionState::in_test(self.depth),
            (false, false) => TransactionState::open(self.depth),
        }
    }

    fn session_begin(&mut self) -> Result<(), SessionError> {
        let outermost = self.is_outermost(self.depth);
        self.transaction(|server, pid, name| {
            if outermost {
                server.begin_unless_open(pid)
            } else {
                server.savepoint(pid, name)
            }
        })
        .inspect_err(|_| self.no_transaction(outermost))?;
        self.depth += 1;
        Ok(())
    }

    fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        let depth = self.depth.checked_sub(1);
        self.depth = depth.ok_or_else(|| SessionError::new("no transaction"))?;
        let outermost = self.is_outermost(self.depth);
        self.transaction(|server, pid, name| {
            let checked = check.map_or(Ok(()), |check| server.script(pid, check).map(drop));
            if outermost {
                checked?;
                server.commit(pid)?.then_some(()).ok_or("25P02")
            } else {
                // A client goes on with what is around a savepoint that could not be released.
                let released = checked.and_then(|()| server.release_savepoint(pid, name));
                released.inspect_err(|_| {
                    let _ = server.rollback_to(pid, name);
                    let _ = server.release_savepoint(pid, name);
                })
            }
        })
        .inspect_err(|_| self.no_transaction(outermost))
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        let depth = self.depth.checked_sub(1);
        self.depth = depth.ok_or_else(|| SessionError::new("no transaction"))?;
        let outermost = self.is_outermost(self.depth);
        self.transaction(|server, pid, name| {
            if outermost {
                server.rollback(pid)
            } else {
                // As Diesel does, which does not release the savepoint.
                server.rollback_to(pid, name)
            }
        })
    }

    fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        // A check of `pg_locks` may return null.
        let checks = matches!(
            statement.kind(),
            Some(StatementKind::ReleaseIfHeld { .. } | StatementKind::IsHeld)
        );
        let null = !checks && self.faults.is_next(Fault::Null);
        self.request(false, |session| {
            let (pid, number) = (session.pid, statement.id());
            let is_cached = statement.is_cacheable() && !session.prepared.insert(number);
            session.model.run(|server| {
                server.prepare(pid, number, is_cached)?;
                if null {
                    server.written(pid)?;
                    return Ok(null_row(statement, pid));
                }
                server.query(pid, statement)
            })
        })
    }

    fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        if let Script::Terminate { pid, .. } = *script {
            // The statement does nothing on another session.
            if pid.is_some_and(|pid| pid != self.pid) {
                return Ok(());
            }
            // The planned faults count the other requests.
            self.model.run(|server| server.terminate(self.pid));
            return Err(SessionError::new("terminated").with_disconnected(true));
        }
        let shows_code = !matches!(script, Script::RollBackWait);
        self.request(shows_code, |session| session.run_script(script))
    }

    fn session_mark_broken(&mut self) {
        self.broken = true;
    }
}

impl Drop for ModelSession {
    fn drop(&mut self) {
        self.model.run(|server| server.terminate(self.pid));
    }
}
