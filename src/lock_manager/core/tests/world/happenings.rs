//! What happens between a locker, the network and the server.

use super::{Connection, Event, World};
use crate::backends::postgres::classify;
use crate::error::{LockError, LockErrorKind};
use crate::lock_manager::core::{SessionId, WaitOutcome};
use crate::session::{Backend, BatchMode, LockBatch, LockOpKind, SessionError};

impl World {
    pub(super) fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrived => self.arrive(),
            Event::Opened(process, session) => self.opened(process, session),
            Event::Ran(process, session, round) => self.ran(process, session, &round),
            Event::Arrives(process, session, answer) => {
                if !self.connections.contains_key(&(process, session)) {
                    self.met.count("answer too late");
                }
                self.cores[process].on_batch_result(session, answer, now);
                self.carry_out(process);
            }
            Event::Gone(process, session) => {
                self.cores[process].on_session_closed(session);
                self.carry_out(process);
            }
            Event::Released(process, task) => self.release(process, task),
            Event::Cancelled(process, task) => self.cancel(process, task),
            Event::Limit(process, session) => self.limit_passes(process, session),
            Event::ShutDown(process) => {
                let mut held = self.tasks.values();
                if held.any(|task| task.process == process && task.hold.is_some()) {
                    self.met.count("shut down with holders");
                }
                self.met.count("shut down");
                self.cores[process].shut_down(now);
                self.carry_out(process);
            }
        }
    }

    fn opened(&mut self, process: usize, session: SessionId) {
        let opened = if self.chance(self.plan.faults.unopened) {
            self.met.count("no session");
            Err(LockError::new(LockErrorKind::Pool))
        } else {
            let backend = self.backend();
            let pid = if backend == Backend::Postgres {
                self.server.connect()
            } else {
                0
            };
            if pid != 0 {
                let connection = Connection {
                    pid,
                    waits: None,
                    silent: None,
                };
                self.connections.insert((process, session), connection);
            }
            Ok((backend, pid))
        };
        let now = self.now;
        self.cores[process].on_opened(session, opened, now);
        self.carry_out(process);
    }

    /// A session's wait on the server reaches its limit.
    fn limit_passes(&mut self, process: usize, session: SessionId) {
        let connection = self.connections.get_mut(&(process, session));
        let Some((pid, (key, _))) = connection.and_then(|c| Some((c.pid, c.waits.take()?))) else {
            return;
        };
        self.server.leave_queue(pid, key);
        let waited = if self.server.is_alive(pid) {
            WaitOutcome::TimedOut
        } else {
            WaitOutcome::Failed(LockError::new(LockErrorKind::Database))
        };
        self.end_connection(process, session, false);
        let now = self.now;
        self.cores[process].on_wait_ended(session, waited, now);
        self.carry_out(process);
    }

    /// A round reaches the server.
    fn ran(&mut self, process: usize, session: SessionId, round: &LockBatch) {
        let Some(connection) = self.connections.get(&(process, session)).copied() else {
            return;
        };
        let pid = connection.pid;
        self.note(round);
        let gone =
            || Err(SessionError::new("the model's session has ended").with_disconnected(true));
        let answer = if !self.server.is_alive(pid) {
            gone()
        } else {
            let steps = round.ops().len();
            let fails = self.chance(self.plan.faults.failed) && steps > 0;
            let fail_at = fails.then(|| self.random.usize(0..steps));
            let answer = self.server.run(pid, round, fail_at);
            if self.chance(self.plan.faults.lost) {
                self.server.terminate(pid);
                gone()
            } else {
                answer
            }
        };
        if let Err(error) = &answer {
            let known = classify(error.code()) == LockErrorKind::TooManyLocks;
            assert!(error.is_disconnected() || known);
        }
        for step in round.ops() {
            if round.mode() == BatchMode::Compensate {
                self.reset_tenure(process, step.key());
            } else if step.kind() == LockOpKind::Release {
                self.given_back(process, round, step.key());
            }
        }
        let delay = self.micros(20..60);
        if !self.chance(self.plan.faults.silent) {
            self.at(delay, Event::Arrives(process, session, answer));
            return;
        }
        let now = self.now;
        if let Some(connection) = self.connections.get_mut(&(process, session)) {
            connection.silent.get_or_insert(now);
        }
        if self.chance(2) {
            let long = self.micros(30_000..60_000);
            self.at(long, Event::Arrives(process, session, answer));
        }
    }

    fn note(&mut self, round: &LockBatch) {
        self.met.count(match (round.mode(), round.ops().len()) {
            (BatchMode::Compensate, _) => "undone",
            (_, 0) => "pinged",
            (_, 1) => "round",
            _ => "round of many",
        });
    }

    /// Others can get it, unless it is taken again in the same breath and nobody waits for it on the server.
    fn given_back(&mut self, process: usize, round: &LockBatch, key: crate::key::RawLockKey) {
        let again = round
            .ops()
            .iter()
            .any(|step| step.key() == key && matches!(step.kind(), LockOpKind::Acquire { .. }));
        if again {
            self.met.count("round that gives back and takes again");
        }
        // With everybody polling, a lock that is taken again is as good as handed on.
        if !again || !self.plan.crowd {
            self.reset_tenure(process, key);
        }
    }

    /// Waits that the server has granted are told.
    pub(super) fn grants_arrive(&mut self) {
        let waiting: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((*id, connection.pid, connection.waits?)))
            .collect();
        for ((process, session), pid, (key, mode)) in waiting {
            let waited = if !self.server.is_alive(pid) {
                let kind = if self.chance(2) {
                    LockErrorKind::Lost
                } else {
                    LockErrorKind::Database
                };
                WaitOutcome::Failed(LockError::new(kind))
            } else if self.server.holds(pid, key, mode) {
                self.met.count("waited on the server");
                WaitOutcome::Granted { pid }
            } else {
                continue;
            };
            if let Some(connection) = self.connections.get_mut(&(process, session)) {
                connection.waits = None;
            }
            let now = self.now;
            self.cores[process].on_wait_ended(session, waited, now);
            self.carry_out(process);
        }
    }
}
