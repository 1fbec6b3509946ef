//! A link: the network connection of a client, with its undelivered messages and its reply.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use advisory_locking::session::AsyncLockSession;
use advisory_locking::session::{
    Backend, Row, Script, SessionError, SqlState, Statement, TransactionState,
};

use crate::simulation::Simulation;
use testkit::model::statements::ScriptResult;
use testkit::model::{Code, Pid, Server, Ticket};

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Query(Statement),
    Script(Script),
    /// With the client's transaction depth.
    Begin(u32),
    Commit(u32, Option<Script>),
    Rollback(u32),
    /// The end of the session.
    End,
}

/// Reply to a message: a row or nothing; or the SQLSTATE, and `true` if the session has ended.
pub(crate) type Reply = Result<Option<Row>, (Code, bool)>;

pub(crate) struct Link {
    pub(crate) client: usize,
    pub(crate) pid: Pid,
    /// The session that sent the last reply.
    pub(crate) answered_by: Pid,
    /// A pooler has swapped the session.
    pub(crate) swapped: bool,
    pub(crate) inbox: VecDeque<(u64, Message)>,
    /// A wait on the server.
    pub(crate) waiting: Option<Waiting>,
    /// The message whose reply the client awaits.
    awaited: Option<u64>,
    reply: Option<Reply>,
    sent: u64,
    pub(crate) hides_codes: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) message: u64,
    pub(crate) script: Script,
    pub(crate) ticket: Ticket,
    pub(crate) until: Option<Duration>,
}

impl Link {
    fn send(&mut self, message: Message) -> u64 {
        self.sent += 1;
        self.inbox.push_back((self.sent, message));
        self.sent
    }

    /// Stores the reply if the client still awaits it. Returns `true` if it does.
    pub(crate) fn answer(&mut self, message: u64, reply: Reply) -> bool {
        let awaited = self.awaited == Some(message);
        if awaited {
            self.reply = Some(reply);
        }
        awaited
    }

    /// Returns `true` if no message is undelivered and no wait is running.
    pub(crate) fn is_quiet(&self) -> bool {
        self.inbox.is_empty() && self.waiting.is_none()
    }
}

/// The client's end of a link.
pub(crate) struct Session {
    simulation: Simulation,
    pub(crate) link: usize,
    client: usize,
    depth: u32,
    broken: bool,
}

/// Stops awaiting the reply when it is dropped.
struct Awaiting<'s>(&'s Session);

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.simulation.state().links[self.0.link].awaited = None;
    }
}

impl Session {
    pub(crate) fn connect(simulation: &Simulation, client: usize) -> Self {
        let mut state = simulation.state();
        let pid = state.server.connect();
        let hides_codes = state.rng.bool();
        state.links.push(Link {
            client,
            pid,
            answered_by: pid,
            swapped: false,
            inbox: VecDeque::new(),
            waiting: None,
            awaited: None,
            reply: None,
            sent: 0,
            hides_codes,
        });
        Self {
            simulation: simulation.clone(),
            link: state.links.len() - 1,
            client,
            depth: 0,
            broken: false,
        }
    }

    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    fn send(&self, message: Message) -> u64 {
        self.simulation.state().links[self.link].send(message)
    }

    async fn request(
        &self,
        message: Message,
        shows_code: bool,
    ) -> Result<Option<Row>, SessionError> {
        let number = self.send(message);
        let awaiting = Awaiting(self);
        self.simulation.state().links[self.link].awaited = Some(number);
        let reply = poll_fn(|_| {
            let mut state = self.simulation.state();
            let reply = state.links[self.link].reply.take();
            reply.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        drop(awaiting);
        let shown = shows_code || !self.simulation.state().links[self.link].hides_codes;
        reply.map_err(|(code, gone)| {
            SessionError::new(format!("the model's error {code}"))
                .with_code(SqlState::new(code).filter(|_| shown))
                .with_disconnected(gone)
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.send(Message::End);
    }
}

impl AsyncLockSession for Session {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        if self.broken {
            TransactionState::broken()
        } else {
            TransactionState::open(self.depth)
        }
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        self.request(Message::Begin(self.depth), false).await?;
        self.depth += 1;
        Ok(())
    }

    async fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        self.depth -= 1;
        self.request(Message::Commit(self.depth, check.copied()), false)
            .await
            .map(drop)
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.depth -= 1;
        self.request(Message::Rollback(self.depth), false)
            .await
            .map(drop)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let row = self
            .request(Message::Query(statement.clone()), false)
            .await?;
        row.ok_or_else(|| SessionError::new("a query returns a row"))
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        if let Script::Terminate { .. } = *script {
            // The reply is the end of the session.
            return self.request(Message::End, false).await.map(drop);
        }
        let shows_code = !matches!(script, Script::RollBackWait);
        self.request(Message::Script(*script), shows_code)
            .await
            .map(drop)
    }

    fn session_mark_broken(&mut self) {
        self.broken = true;
    }

    fn session_start_terminate(&mut self, _pid: Option<i32>) {
        self.broken = true;
        self.send(Message::End);
        let mut state = self.simulation.state();
        // The cancel request uses another connection, and may be lost.
        let pid = state.links[self.link].pid;
        if state.rng.bool() {
            state.server.cancel(pid);
        }
    }

    fn session_enqueue(&mut self, script: &Script) -> bool {
        self.send(Message::Script(*script));
        true
    }

    fn session_now(&mut self) -> Instant {
        self.simulation.state().now()
    }

    async fn session_sleep(&mut self, pause: Duration) {
        crate::client::pause(&self.simulation, self.client, pause).await;
    }
}

/// Executes a message on the server.
pub(crate) fn execute(server: &mut Server, pid: Pid, message: &Message) -> Result<Done, Code> {
    let savepoint = |depth: u32| format!("depth_{depth}");
    match message {
        Message::Query(statement) => {
            let row = server.query(pid, statement)?;
            Ok(Done::Answered(row))
        }
        Message::Script(script) => server.script(pid, script).map(|result| match result {
            ScriptResult::Done => Done::Ran,
            ScriptResult::Queued(ticket) => Done::Queued(ticket),
        }),
        Message::Begin(0) => server.begin(pid).map(|()| Done::Ran),
        Message::Begin(depth) => server
            .savepoint(pid, &savepoint(*depth))
            .map(|()| Done::Ran),
        Message::Commit(0, check) => {
            run_check(server, pid, check.as_ref())?;
            server.commit(pid)?.then_some(Done::Ran).ok_or("25P02")
        }
        Message::Commit(depth, check) => {
            let name = savepoint(*depth);
            let checked = run_check(server, pid, check.as_ref());
            let released = checked.and_then(|()| server.release_savepoint(pid, &name));
            if released.is_err() {
                let _ = server.rollback_to(pid, &name);
                let _ = server.release_savepoint(pid, &name);
            }
            released.map(|()| Done::Ran)
        }
        Message::Rollback(0) => server.rollback(pid).map(|()| Done::Ran),
        Message::Rollback(depth) => server
            .rollback_to(pid, &savepoint(*depth))
            .map(|()| Done::Ran),
        Message::End => {
            server.terminate(pid);
            Err("57P01")
        }
    }
}

fn run_check(server: &mut Server, pid: Pid, check: Option<&Script>) -> Result<(), Code> {
    check.map_or(Ok(()), |check| server.script(pid, check).map(drop))
}

pub(crate) enum Done {
    Ran,
    Answered(Row),
    Queued(Ticket),
}
