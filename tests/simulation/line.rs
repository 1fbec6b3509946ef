//! A connection: what its client has sent and the server has not seen, and what comes back.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use advisory_locking::session::AsyncLockSession;
use advisory_locking::session::{
    Backend, BatchReply, LockBatch, LockReply, Script, ScriptKind, SessionError, SqlState,
    Statement, TransactionState,
};

use crate::model::statements::Batched;
use crate::model::{Code, Pid, Server, Ticket};
use crate::world::World;

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Query(Statement),
    Script(Script),
    LockBatch(LockBatch),
    /// With how deep the client was in transactions.
    Begin(u32),
    Commit(u32),
    Rollback(u32),
    /// The end of the session.
    End,
}

/// What a message comes to: a row, or nothing but that it was done.
pub(crate) type Reply = Result<Option<Answer>, (Code, bool)>;

#[derive(Debug)]
pub(crate) enum Answer {
    Row(LockReply),
    LockBatch(BatchReply),
}

pub(crate) struct Line {
    pub(crate) client: usize,
    pub(crate) pid: Pid,
    /// The session that answered last; another one may have been given since.
    pub(crate) answered_by: Pid,
    /// A pooler has given it another session than it had.
    pub(crate) exchanged: bool,
    pub(crate) inbox: VecDeque<(u64, Message)>,
    /// A wait on the server.
    pub(crate) waiting: Option<Waiting>,
    /// Which message's answer is waited for.
    awaited: Option<u64>,
    reply: Option<Reply>,
    sent: u64,
    pub(crate) hides_codes: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) message: u64,
    pub(crate) batch: Script,
    pub(crate) ticket: Ticket,
    pub(crate) until: Option<Duration>,
}

impl Line {
    fn send(&mut self, message: Message) -> u64 {
        self.sent += 1;
        self.inbox.push_back((self.sent, message));
        self.sent
    }

    /// Whether the answer is for somebody who still waits for it.
    pub(crate) fn answer(&mut self, message: u64, reply: Reply) -> bool {
        let awaited = self.awaited == Some(message);
        if awaited {
            self.reply = Some(reply);
        }
        awaited
    }

    /// Whether nothing is on its way or under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.inbox.is_empty() && self.waiting.is_none()
    }
}

/// The client's end of a line.
pub(crate) struct Session {
    world: World,
    pub(crate) line: usize,
    client: usize,
    depth: u32,
    broken: bool,
}

/// Nobody waits for the answer any more.
struct Awaiting<'s>(&'s Session);

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.world.state().lines[self.0.line].awaited = None;
    }
}

impl Session {
    pub(crate) fn connect(world: &World, client: usize) -> Self {
        let mut state = world.state();
        let pid = state.server.connect();
        let hides_codes = state.rng.bool();
        state.lines.push(Line {
            client,
            pid,
            answered_by: pid,
            exchanged: false,
            inbox: VecDeque::new(),
            waiting: None,
            awaited: None,
            reply: None,
            sent: 0,
            hides_codes,
        });
        Self {
            world: world.clone(),
            line: state.lines.len() - 1,
            client,
            depth: 0,
            broken: false,
        }
    }

    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    fn send(&self, message: Message) -> u64 {
        self.world.state().lines[self.line].send(message)
    }

    async fn request(
        &self,
        message: Message,
        shows_code: bool,
    ) -> Result<Option<Answer>, SessionError> {
        let number = self.send(message);
        let awaiting = Awaiting(self);
        self.world.state().lines[self.line].awaited = Some(number);
        let reply = poll_fn(|_| {
            let mut state = self.world.state();
            let reply = state.lines[self.line].reply.take();
            reply.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        drop(awaiting);
        let shown = shows_code || !self.world.state().lines[self.line].hides_codes;
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

    async fn session_commit(&mut self) -> Result<(), SessionError> {
        self.depth -= 1;
        self.request(Message::Commit(self.depth), false)
            .await
            .map(drop)
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.depth -= 1;
        self.request(Message::Rollback(self.depth), false)
            .await
            .map(drop)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<LockReply, SessionError> {
        match self.request(Message::Query(*statement), false).await? {
            Some(Answer::Row(row)) => Ok(row),
            _ => Err(SessionError::new("a query answers a row")),
        }
    }

    async fn session_execute(&mut self, batch: &Script) -> Result<(), SessionError> {
        let shows_code = !matches!(batch.kind(), ScriptKind::RollBackWait);
        self.request(Message::Script(*batch), shows_code)
            .await
            .map(drop)
    }

    async fn session_execute_batch(
        &mut self,
        round: &LockBatch,
    ) -> Result<BatchReply, SessionError> {
        match self
            .request(Message::LockBatch(round.clone()), false)
            .await?
        {
            Some(Answer::LockBatch(row)) => Ok(row),
            _ => Err(SessionError::new("a round answers a row of its own")),
        }
    }

    async fn session_terminate(&mut self) {
        self.broken = true;
        // Its answer is the end.
        let _ = self.request(Message::End, false).await;
    }

    fn session_start_terminate(&mut self) {
        self.broken = true;
        self.send(Message::End);
        let mut state = self.world.state();
        // The cancel request, which comes by another way.
        let pid = state.lines[self.line].pid;
        if state.rng.bool() {
            state.server.cancel(pid);
        }
    }

    fn session_enqueue(&mut self, batch: &Script) -> bool {
        self.send(Message::Script(*batch));
        true
    }

    fn session_now(&mut self) -> Instant {
        self.world.state().now()
    }

    async fn session_sleep(&mut self, pause: Duration) {
        crate::client::pause(&self.world, self.client, pause).await;
    }
}

/// What the server does with a message that does not wait.
pub(crate) fn execute(server: &mut Server, pid: Pid, message: &Message) -> Result<Done, Code> {
    let savepoint = |depth: u32| format!("depth_{depth}");
    match message {
        Message::Query(statement) => {
            let row = server.query(pid, statement)?;
            Ok(Done::Answered(Answer::Row(row)))
        }
        Message::LockBatch(round) => {
            let row = server.round(pid, round)?;
            Ok(Done::Answered(Answer::LockBatch(row)))
        }
        Message::Script(batch) => server.batch(pid, batch).map(|batched| match batched {
            Batched::Ran => Done::Ran,
            Batched::Queued(ticket) => Done::Queued(ticket),
        }),
        Message::Begin(0) => server.begin(pid).map(|()| Done::Ran),
        Message::Begin(depth) => server
            .savepoint(pid, &savepoint(*depth))
            .map(|()| Done::Ran),
        Message::Commit(0) => server.commit(pid)?.then_some(Done::Ran).ok_or("25P02"),
        Message::Commit(depth) => {
            let name = savepoint(*depth);
            let released = server.release_savepoint(pid, &name);
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

pub(crate) enum Done {
    Ran,
    Answered(Answer),
    Queued(Ticket),
}
