//! What a core wants done.

use super::{Connection, Event, World};
use crate::lock_manager::core::{Command, SessionId};
use crate::options::{LockMode, Wait};

impl World {
    pub(super) fn carry_out(&mut self, process: usize) {
        for command in self.cores[process].take_commands(Vec::new()) {
            match command {
                Command::Open { session } => {
                    let delay = self.micros(100..1_000);
                    self.at(delay, Event::Opened(process, session));
                }
                Command::RunBatch {
                    session,
                    batch: round,
                } => {
                    let delay = self.micros(20..60);
                    self.at(delay, Event::Ran(process, session, round));
                }
                Command::WaitOnServer {
                    session,
                    key,
                    options,
                } => {
                    let known = self.connections.get(&(process, session)).map(|c| c.pid);
                    let pid = known.unwrap_or_else(|| self.server.connect());
                    let mode = options.lock_mode();
                    let connection = Connection {
                        pid,
                        waits: Some((key.raw(), mode)),
                        silent: None,
                    };
                    self.connections.insert((process, session), connection);
                    if self.server.is_alive(pid) {
                        self.server.wait(pid, key.raw(), mode);
                    }
                    if let Wait::UpTo(limit) = options.wait() {
                        self.at(limit, Event::Limit(process, session));
                    }
                }
                Command::Close { session } => {
                    self.check_nothing_held(process, session);
                    self.end_connection(process, session, true);
                }
                Command::Terminate { session } => self.end_connection(process, session, true),
                Command::SessionLost { session } => self.lost(process, session),
                Command::Granted {
                    waiter,
                    grant: hold,
                } => self.granted(process, waiter, hold),
                Command::Failed { waiter, error } => {
                    self.met.refused(error.kind());
                    self.finish(waiter);
                }
                Command::Released { waiter, result } => self.released(waiter, result),
                Command::Closed { .. } => self.met.count("closed"),
            }
        }
    }

    fn check_nothing_held(&self, process: usize, session: SessionId) {
        let Some(connection) = self.connections.get(&(process, session)) else {
            return;
        };
        for key in &self.keys {
            for mode in [LockMode::Exclusive, LockMode::Shared] {
                let held = self.server.holds(connection.pid, key.raw(), mode);
                assert!(!held, "given to the pool with {key}");
            }
        }
    }

    fn lost(&mut self, process: usize, session: SessionId) {
        let silent = self.connections.get(&(process, session));
        self.met
            .count(match silent.and_then(|connection| connection.silent) {
                Some(since) if since < self.now => "silent session given up",
                _ => "lost session",
            });
        for task in self.tasks.values_mut() {
            let on_it = task.hold.is_some_and(|hold| hold.session == Some(session));
            if on_it && task.process == process {
                task.lost = true;
                self.met.count("lost holder");
            }
        }
    }

    /// The connection goes; the server ends its session.
    pub(super) fn end_connection(&mut self, process: usize, session: SessionId, tell: bool) {
        if let Some(connection) = self.connections.remove(&(process, session)) {
            self.server.terminate(connection.pid);
            self.turns.retain(|(of, _), _| *of != process);
        }
        if tell {
            let delay = self.micros(0..100);
            self.at(delay, Event::Gone(process, session));
        }
    }
}
