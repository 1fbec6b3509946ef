//! Events between a lock manager, the network and the server.

use super::{Connection, Event, Simulation};
use crate::error::{LockError, LockErrorKind};
use crate::lock_manager::core::SessionId;
use crate::session::{
    Backend, BatchMode, BatchReply, LockBatch, LockOpKind, ServerSigns, SessionError,
};

/// Process id of another client's session.
const NO_PID: i32 = -1;

impl Simulation {
    pub(super) fn handle_event(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::TaskArrives => self.spawn_task(),
            Event::ConnectionOpened(process, session) => self.open_connection(process, session),
            Event::BatchArrives(process, session, batch) => {
                self.run_batch(process, session, &batch)
            }
            Event::ReplyArrives(process, session, result) => {
                if !self.connections.contains_key(&(process, session)) {
                    self.coverage.count("late reply");
                }
                self.cores[process].on_batch_result(session, result, now);
                self.perform_commands(process);
            }
            Event::SessionEnded(process, session) => {
                let now = self.now;
                self.cores[process].on_session_closed(session, now);
                self.perform_commands(process);
            }
            Event::ConnectionChecked(process, session) => self.check_connection(process, session),
            Event::TaskReleases(process, task) => self.release(process, task),
            Event::TaskCancels(process, task) => self.cancel(process, task),
            Event::ServerWaitLimit(process, session) => self.end_wait_at_limit(process, session),
            Event::ShutDown(process) => {
                let mut held = self.tasks.values();
                if held.any(|task| task.process == process && task.grant.is_some()) {
                    self.coverage.count("shut down with holders");
                }
                self.coverage.count("shut down");
                self.cores[process].shut_down(now);
                self.perform_commands(process);
            }
            Event::Close(process) => {
                self.coverage.count("closed early");
                self.cores[process].close(u64::MAX);
                self.perform_commands(process);
            }
            Event::PoolClosed(process) => {
                self.coverage.count("pool closed");
                self.cores[process].on_pool_closed();
                self.perform_commands(process);
            }
        }
    }

    fn open_connection(&mut self, process: usize, session: SessionId) {
        if !self.opening.remove(&(process, session)) {
            return;
        }
        let opened = if self.chance(self.plan.faults.open_failed) {
            self.coverage.count("open failure");
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
                    waits_for: None,
                    silent: None,
                };
                self.connections.insert((process, session), connection);
            }
            Ok((backend, pid))
        };
        let now = self.now;
        self.cores[process].on_opened(session, opened, now);
        self.perform_commands(process);
    }

    /// Reports a connection whose session has ended on the server.
    fn check_connection(&mut self, process: usize, session: SessionId) {
        let connection = self.connections.get(&(process, session));
        let has_ended = connection.is_some_and(|connection| !self.server.is_alive(connection.pid));
        self.coverage.count("connection checked");
        if has_ended {
            self.coverage.count("connection found closed");
            let now = self.now;
            self.cores[process].on_connection_closed(session, now);
            self.perform_commands(process);
        }
    }

    /// Ends a wait on the server at its limit.
    fn end_wait_at_limit(&mut self, process: usize, session: SessionId) {
        let connection = self.connections.get_mut(&(process, session));
        let Some((pid, (key, _))) = connection.and_then(|c| Some((c.pid, c.waits_for.take()?)))
        else {
            return;
        };
        self.server.leave_queue(pid, key);
        let outcome = if self.server.is_alive(pid) {
            Ok(None)
        } else {
            Err(LockError::new(LockErrorKind::Database))
        };
        self.end_connection(process, session, false);
        let now = self.now;
        self.cores[process].on_wait_ended(session, outcome, now);
        self.perform_commands(process);
    }

    /// Runs a batch on the server and schedules the reply.
    fn run_batch(&mut self, process: usize, session: SessionId, batch: &LockBatch) {
        let Some(connection) = self.connections.get(&(process, session)).copied() else {
            return;
        };
        let pid = connection.pid;
        self.count_batch(batch);
        let gone =
            || Err(SessionError::new("the model's session has ended").with_disconnected(true));
        let result = if !self.server.is_alive(pid) {
            gone()
        } else if self.chance(self.plan.faults.exchanged) {
            // The statement compares the process id first, and executes nothing.
            self.coverage.count("session exchanged");
            Ok(BatchReply {
                answers: None,
                token: None,
                pid: NO_PID,
                server_signs: ServerSigns::NONE,
            })
        } else {
            let ops = batch.ops().len();
            let fails = self.chance(self.plan.faults.failed) && ops > 0;
            // A full lock table, or an error of one operation.
            let code = if self.chance(2) { "53200" } else { "42501" };
            let fail_at = fails.then(|| (self.random.usize(0..ops), code));
            let result = self.server.run(pid, batch, fail_at);
            if self.chance(self.plan.faults.lost) {
                self.server.terminate(pid);
                gone()
            } else {
                result
            }
        };
        if let Err(error) = &result {
            assert!(error.is_disconnected() || error.code().is_some());
        }
        for op in batch.ops() {
            if batch.mode() == BatchMode::Compensate {
                self.reset_hand_offs(process, op.key());
            } else if op.kind() == LockOpKind::Release {
                self.on_release_sent(process, batch, op.key());
            }
        }
        let delay = self.random_micros(20..60);
        if !self.chance(self.plan.faults.silent) {
            self.at(delay, Event::ReplyArrives(process, session, result));
            return;
        }
        let now = self.now;
        if let Some(connection) = self.connections.get_mut(&(process, session)) {
            connection.silent.get_or_insert(now);
        }
        if self.chance(2) {
            let long = self.random_micros(30_000..60_000);
            self.at(long, Event::ReplyArrives(process, session, result));
        }
    }

    fn count_batch(&mut self, batch: &LockBatch) {
        self.coverage
            .count(match (batch.mode(), batch.ops().len()) {
                (BatchMode::Compensate, _) => "compensated",
                (_, 0) => "pinged",
                (_, 1) => "batch",
                _ => "batch of many",
            });
    }

    /// Resets the hand-offs of a released key, because other processes may acquire it now.
    ///
    /// Except with a reacquire in the same batch, if all processes poll.
    fn on_release_sent(&mut self, process: usize, batch: &LockBatch, key: crate::key::RawLockKey) {
        let reacquires = batch
            .ops()
            .iter()
            .any(|op| op.key() == key && matches!(op.kind(), LockOpKind::Acquire { .. }));
        if reacquires {
            self.coverage.count("batch that releases and reacquires");
        }
        // Among polling processes a reacquire in the same batch is as exclusive as a hand-off.
        if !reacquires || !self.plan.single_hot_key {
            self.reset_hand_offs(process, key);
        }
    }

    /// Reports the waits that the server has granted or whose session has ended.
    pub(super) fn report_server_waits(&mut self) {
        let waiting: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((*id, connection.pid, connection.waits_for?)))
            .collect();
        for ((process, session), pid, (key, mode)) in waiting {
            let outcome = if !self.server.is_alive(pid) {
                let kind = if self.chance(2) {
                    LockErrorKind::Lost
                } else {
                    LockErrorKind::Database
                };
                Err(LockError::new(kind))
            } else if self.server.holds(pid, key, mode) {
                self.coverage.count("waited on the server");
                let exchanged = self.chance(self.plan.faults.exchanged);
                let pid = if exchanged { NO_PID } else { pid };
                Ok(Some(pid))
            } else {
                continue;
            };
            if let Some(connection) = self.connections.get_mut(&(process, session)) {
                connection.waits_for = None;
            }
            let now = self.now;
            self.cores[process].on_wait_ended(session, outcome, now);
            self.perform_commands(process);
        }
    }
}
