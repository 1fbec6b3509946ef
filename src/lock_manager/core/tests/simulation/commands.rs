//! Driver of the simulated cores: performs their commands.

use super::{Event, Simulation};
use crate::lock_manager::core::{Command, SessionCommand, SessionId};
use crate::options::LockMode;

impl Simulation {
    /// Performs the commands of a core in order. Commands that an event adds meanwhile follow.
    pub(super) fn perform_commands(&mut self, process: usize) {
        if !self.performing.insert(process) {
            return;
        }
        loop {
            let commands = self.cores[process].take_commands(Vec::new(), self.now);
            if commands.is_empty() {
                break;
            }
            for command in commands {
                self.perform(process, command);
            }
        }
        self.performing.remove(&process);
    }

    fn perform(&mut self, process: usize, command: Command<u64>) {
        match command {
            Command::Session { session, command } => {
                self.perform_on_session(process, session, command);
            }
            Command::SessionLost { session } => self.on_session_lost(process, session),
            Command::Granted { waiter, grant } => self.granted(process, waiter, grant),
            Command::Failed { waiter, error } => {
                self.coverage.failed(error.kind());
                self.finish(waiter);
            }
            Command::Released { waiter, result } => self.released(waiter, result),
            Command::Waits { request, key } => self.waits(process, request, key),
            Command::Closed { .. } => self.coverage.count("closed"),
        }
    }

    fn perform_on_session(&mut self, process: usize, session: SessionId, command: SessionCommand) {
        match command {
            SessionCommand::Open => {
                self.opening.insert((process, session));
                // Longer than several polls, or shorter than one.
                let slow = self.chance(8);
                let delay = self.random_micros(if slow { 100..30_000 } else { 100..1_000 });
                self.at(delay, Event::ConnectionOpened(process, session));
            }
            SessionCommand::RunBatch(batch) => {
                let delay = self.random_micros(20..60);
                self.at(delay, Event::BatchArrives(process, session, batch));
            }
            SessionCommand::WaitOnServer { key, options } => {
                let mode = options.mode;
                let connection = self.connections.get_mut(&(process, session));
                let connection = connection.expect("the session is open");
                let pid = connection.pid;
                (connection.waits_for, connection.silent) = (Some((key.raw(), mode)), None);
                if self.server.is_alive(pid) {
                    self.server.wait(pid, key.raw(), mode);
                }
                if let Some(limit) = options.limit() {
                    self.at(limit, Event::ServerWaitLimit(process, session));
                }
            }
            SessionCommand::CheckConnection => {
                let delay = self.random_micros(0..100);
                self.at(delay, Event::ConnectionChecked(process, session));
            }
            SessionCommand::Close => {
                self.check_nothing_held(process, session);
                self.end_connection(process, session, true);
            }
            SessionCommand::Terminate => self.end_connection(process, session, true),
        }
    }

    fn check_nothing_held(&self, process: usize, session: SessionId) {
        let Some(connection) = self.connections.get(&(process, session)) else {
            return;
        };
        for key in &self.keys {
            for mode in [LockMode::Exclusive, LockMode::Shared] {
                let held = self.server.holds(connection.pid, key.raw(), mode);
                assert!(!held, "returned to the pool with {key}");
            }
        }
    }

    fn on_session_lost(&mut self, process: usize, session: SessionId) {
        let silent = self.connections.get(&(process, session));
        self.coverage
            .count(match silent.and_then(|connection| connection.silent) {
                Some(since) if since < self.now => "silent session terminated",
                _ => "lost session",
            });
        for task in self.tasks.values_mut() {
            let on_it = task
                .grant
                .is_some_and(|grant| grant.session == Some(session));
            if on_it && task.process == process {
                task.lost = true;
                self.coverage.count("lost holder");
            }
        }
    }

    /// Removes a connection and ends its session on the server.
    pub(super) fn end_connection(&mut self, process: usize, session: SessionId, tell: bool) {
        if self.opening.remove(&(process, session)) {
            self.coverage.count("terminated before it was open");
        }
        if let Some(connection) = self.connections.remove(&(process, session)) {
            self.server.terminate(connection.pid);
            self.hand_offs.retain(|(of, _), _| *of != process);
        }
        if tell {
            let delay = self.random_micros(0..100);
            self.at(delay, Event::SessionEnded(process, session));
        }
    }
}
