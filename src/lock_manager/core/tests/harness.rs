//! Harness that drives a core step by step and returns its commands as text.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::LockError;
use crate::key::{LockKey, RawLockKey};
use crate::lock_manager::core::{
    Command, Core, LockGrant, RequestId, RequestKind, SessionCommand, SessionId,
};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockMode, LockOptions};
use crate::session::{
    Backend, BatchMode, BatchReply, LockBatch, LockOpKind, ServerSigns, SessionError, SqlState,
    TokenSource,
};

pub(super) use crate::error::LockErrorKind;

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The commands of an event that changes nothing.
pub(super) const NO_COMMANDS: [&str; 0] = [];

pub(super) fn no_wait() -> LockOptions {
    LockOptions::no_wait()
}

pub(super) fn forever() -> LockOptions {
    LockOptions::wait_forever()
}

/// Returns a harness with one idle session and default options.
pub(super) fn harness() -> CoreHarness {
    CoreHarness::opened(LockManagerOptions::new())
}

/// Scripted driver of a core.
///
/// Waiters are names. Sessions are named `s1`, `s2`, … in the order in which they appear.
pub(super) struct CoreHarness {
    pub(super) core: Core<&'static str>,
    pub(super) now: Instant,
    sessions: Vec<SessionId>,
    batches: HashMap<SessionId, LockBatch>,
    grants: HashMap<&'static str, LockGrant>,
    requests: HashMap<&'static str, (RequestId, RawLockKey)>,
    transaction: i64,
    advances: u32,
}

impl CoreHarness {
    /// Returns a harness over an async pool, whose connections are not checked.
    pub(super) fn new(options: LockManagerOptions) -> Self {
        let now = Instant::now();
        let core = Core::new(options, fastrand::Rng::with_seed(7), now);
        Self {
            // The first check is beyond the range of the clock.
            core: core.over_async_pool(Duration::MAX),
            now,
            sessions: Vec::new(),
            batches: HashMap::new(),
            grants: HashMap::new(),
            requests: HashMap::new(),
            transaction: 0,
            advances: 0,
        }
    }

    /// Returns a harness with one idle session.
    pub(super) fn opened(options: LockManagerOptions) -> Self {
        let mut harness = Self::new(options);
        harness.request("first", 0, &LockOptions::no_wait());
        harness.open("s1");
        harness.reply("s1", "n");
        harness
    }

    /// Returns the harness over a blocking pool.
    pub(super) fn over_blocking_pool(mut self) -> Self {
        self.core.connection_check_interval = None;
        self
    }

    /// Returns the harness with connection checks at this interval.
    pub(super) fn checking_connections(self, interval: Duration) -> Self {
        Self {
            core: self.core.over_async_pool(interval),
            ..self
        }
    }

    fn id(&self, session: &str) -> SessionId {
        let number: usize = session[1..].parse().expect("a session's name");
        self.sessions[number - 1]
    }

    fn name(&mut self, session: SessionId) -> String {
        if session == SessionId::IN_PROCESS {
            return "in-process".to_owned();
        }
        let known = self.sessions.iter().position(|id| *id == session);
        let position = known.unwrap_or_else(|| {
            self.sessions.push(session);
            self.sessions.len() - 1
        });
        format!("s{}", position + 1)
    }

    /// Returns the commands of the core as text.
    pub(super) fn commands(&mut self) -> Vec<String> {
        let commands = self.core.take_commands(Vec::new(), self.now);
        commands
            .into_iter()
            .filter(|command| !matches!(command, Command::Waits { .. }))
            .map(|command| match command {
                Command::Session { session, command } => self.session_command(session, command),
                Command::SessionLost { session } => format!("lost {}", self.name(session)),
                Command::Granted { waiter, grant } => {
                    self.grants.insert(waiter, grant);
                    match grant.token {
                        Some(token) => format!("granted {waiter} with {token}"),
                        None => format!("granted {waiter}"),
                    }
                }
                Command::Failed { waiter, error } => {
                    format!("failed {waiter}: {:?}", error.kind())
                }
                Command::Released { waiter, result } => match result {
                    Ok(()) => format!("released {waiter}"),
                    Err(kind) => format!("released {waiter}: {kind:?}"),
                },
                Command::Closed { waiter } => format!("closed {waiter}"),
                Command::Waits { .. } => unreachable!("filtered out"),
            })
            .collect()
    }

    fn session_command(&mut self, session: SessionId, command: SessionCommand) -> String {
        let name = self.name(session);
        match command {
            SessionCommand::Open => format!("open {name}"),
            SessionCommand::RunBatch(batch) => {
                let text = format!("run {name}:{}", describe(&batch));
                self.batches.insert(session, batch);
                text
            }
            SessionCommand::WaitOnServer { key, options } => {
                let limit = match options.limit() {
                    Some(limit) => format!("{limit:?}"),
                    None => "forever".to_owned(),
                };
                let mode = mode(options.mode);
                let key = number(key.raw());
                format!("wait {name}: {mode}{key} {limit}")
            }
            SessionCommand::CheckConnection => format!("check connection {name}"),
            SessionCommand::Close => format!("close {name}"),
            SessionCommand::Terminate => format!("terminate {name}"),
        }
    }

    pub(super) fn request(
        &mut self,
        waiter: &'static str,
        key: i64,
        options: &LockOptions,
    ) -> Vec<String> {
        self.add_request(waiter, key, options, RequestKind::Plain)
    }

    /// Requests a lock with a fencing token.
    pub(super) fn request_with_token(
        &mut self,
        waiter: &'static str,
        key: i64,
        options: &LockOptions,
    ) -> Vec<String> {
        self.add_request(waiter, key, options, RequestKind::Fenced)
    }

    /// Requests one of several locks.
    pub(super) fn request_of_several(
        &mut self,
        waiter: &'static str,
        key: i64,
        options: &LockOptions,
    ) -> Vec<String> {
        self.add_request(waiter, key, options, RequestKind::OneOfSeveral)
    }

    fn add_request(
        &mut self,
        waiter: &'static str,
        key: i64,
        options: &LockOptions,
        kind: RequestKind,
    ) -> Vec<String> {
        let key = LockKey::from(key);
        let raw = key.raw();
        let id = self.core.request(key, options, kind, waiter, self.now);
        self.requests.insert(waiter, (id, raw));
        self.commands()
    }

    pub(super) fn cancel(&mut self, waiter: &'static str) -> Vec<String> {
        let (id, key) = self.requests[waiter];
        self.core.cancel(id, key, self.now);
        self.commands()
    }

    pub(super) fn release(&mut self, waiter: &'static str) -> Vec<String> {
        let grant = self.grants[waiter];
        self.core.release(grant, Some(waiter), self.now);
        self.commands()
    }

    pub(super) fn drop_guard(&mut self, waiter: &'static str) -> Vec<String> {
        let grant = self.grants[waiter];
        self.core.release(grant, None, self.now);
        self.commands()
    }

    /// Reports the connection of a session, which has not replied yet.
    pub(super) fn check_out(&mut self, session: &str) -> Vec<String> {
        let id = self.id(session);
        self.core.on_checked_out(id, self.now);
        self.commands()
    }

    pub(super) fn open(&mut self, session: &str) -> Vec<String> {
        self.open_to(session, Backend::Postgres)
    }

    pub(super) fn open_to(&mut self, session: &str, backend: Backend) -> Vec<String> {
        let id = self.id(session);
        self.core
            .on_opened(id, Ok((backend, self.pid(session))), self.now);
        self.commands()
    }

    pub(super) fn fail_open(&mut self, session: &str) -> Vec<String> {
        self.fail_open_with(session, LockError::new(LockErrorKind::Pool))
    }

    pub(super) fn fail_open_with(&mut self, session: &str, error: LockError) -> Vec<String> {
        let id = self.id(session);
        self.core.on_opened(id, Err(error), self.now);
        self.commands()
    }

    pub(super) fn generation(&self, session: &str) -> u64 {
        self.id(session).generation()
    }

    /// Returns the process id of a session on the server.
    pub(super) fn pid(&self, session: &str) -> i32 {
        100 + i32::try_from(self.id(session).generation()).expect("few sessions")
    }

    /// Replies to the last batch: `y` or `n` for each operation.
    pub(super) fn reply(&mut self, session: &str, answers: &str) -> Vec<String> {
        self.reply_from_pid(session, answers, self.pid(session))
    }

    /// Replies from the session with this process id.
    pub(super) fn reply_from_pid(&mut self, session: &str, answers: &str, pid: i32) -> Vec<String> {
        let id = self.id(session);
        let batch = self.batches.get(&id).expect("a batch was sent");
        assert_eq!(batch.ops().len(), answers.len(), "{}", describe(batch));
        let issued = batch.ops().iter().zip(answers.chars()).any(|(op, answer)| {
            answer == 'y'
                && matches!(
                    op.kind(),
                    LockOpKind::Acquire { with_token: true } | LockOpKind::IssueToken
                )
        });
        self.transaction += i64::from(issued);
        let answers: Vec<_> = answers.chars().map(|a| (a == 'y').then_some(1)).collect();
        let reply = BatchReply {
            answers: (!answers.is_empty()).then_some(answers),
            token: issued.then_some(self.transaction),
            pid,
            server_signs: ServerSigns::NONE,
        };
        self.reply_with(session, Ok(reply))
    }

    pub(super) fn reply_with(
        &mut self,
        session: &str,
        result: Result<BatchReply, SessionError>,
    ) -> Vec<String> {
        let id = self.id(session);
        self.core.on_batch_result(id, result, self.now);
        self.commands()
    }

    /// Fails the last batch: a function is denied.
    pub(super) fn fail_batch(&mut self, session: &str) -> Vec<String> {
        self.fail_batch_with(session, "42501")
    }

    /// Fails the last batch with an SQLSTATE.
    pub(super) fn fail_batch_with(&mut self, session: &str, code: &str) -> Vec<String> {
        let error = SessionError::new("failed").with_code(SqlState::new(code));
        self.reply_with(session, Err(error))
    }

    pub(super) fn disconnect(&mut self, session: &str) -> Vec<String> {
        self.reply_with(
            session,
            Err(SessionError::new("gone").with_disconnected(true)),
        )
    }

    /// Reports that the client has found the connection closed.
    pub(super) fn find_closed(&mut self, session: &str) -> Vec<String> {
        let id = self.id(session);
        self.core.on_connection_closed(id, self.now);
        self.commands()
    }

    pub(super) fn end_wait(
        &mut self,
        session: &str,
        granted: Result<Option<i32>, LockError>,
    ) -> Vec<String> {
        let id = self.id(session);
        self.core.on_wait_ended(id, granted, self.now);
        self.commands()
    }

    pub(super) fn grant_wait(&mut self, session: &str) -> Vec<String> {
        let pid = self.pid(session);
        self.end_wait(session, Ok(Some(pid)))
    }

    pub(super) fn end_session(&mut self, session: &str) -> Vec<String> {
        let id = self.id(session);
        self.core.on_session_closed(id, self.now);
        self.commands()
    }

    /// Advances the time, which is the only event.
    pub(super) fn advance(&mut self, pause: Duration) -> Vec<String> {
        self.advances += 1;
        assert!(self.advances < 10_000, "the core emits timers without end");
        self.now += pause;
        self.core.run_due_timers(self.now);
        self.commands()
    }

    /// Returns the time until the next timer.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        let at = self.core.next_timer()?;
        Some(at.saturating_duration_since(self.now))
    }

    /// Advances the time to the next timer.
    pub(super) fn advance_to_next_timer(&mut self) -> Vec<String> {
        let pause = self.next_timer().expect("a timer is scheduled");
        self.advance(pause)
    }

    pub(super) fn token_source_of(&self, session: &str) -> TokenSource {
        self.batches[&self.id(session)].tokens().clone()
    }

    pub(super) fn key_count(&self) -> usize {
        self.core.keys.len()
    }

    pub(super) fn timer_count(&self) -> usize {
        self.core.timers.len()
    }
}

fn describe(batch: &LockBatch) -> String {
    let ops = batch.ops().iter().map(|op| {
        let what = match (batch.mode(), op.kind()) {
            (BatchMode::Compensate, _) => "compensate",
            (BatchMode::Execute, LockOpKind::Acquire { with_token: false }) => "acquire",
            (BatchMode::Execute, LockOpKind::Acquire { with_token: true }) => "acquire with token",
            (BatchMode::Execute, LockOpKind::Release) => "release",
            (BatchMode::Execute, LockOpKind::IssueToken) => "issue token",
        };
        format!(" {what} {}{}", mode(op.mode()), number(op.key()))
    });
    let ops: Vec<_> = ops.collect();
    if ops.is_empty() {
        " ping".to_owned()
    } else {
        ops.join(",")
    }
}

fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Exclusive => "",
        LockMode::Shared => "shared ",
    }
}

fn number(key: RawLockKey) -> i64 {
    match key {
        RawLockKey::Single(number) => number,
        RawLockKey::Pair(..) => unreachable!("the keys here are numbers"),
    }
}
