//! A core and everybody around it, moved by hand: what happens is said, and what the core wants done is read.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::LockError;
use crate::key::{LockKey, RawLockKey};
use crate::lock_manager::core::{Command, Core, LockGrant, RequestId, SessionId, WaitOutcome};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockMode, LockOptions, Wait};
use crate::session::{
    Backend, BatchMode, BatchReply, LockBatch, LockOpKind, SessionError, SqlState, TokenSource,
};

pub(super) use crate::error::LockErrorKind;

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A core whose waiters are names. Sessions are named `s1`, `s2`, … in the order in which they appear.
pub(super) struct Play {
    pub(super) core: Core<&'static str>,
    pub(super) now: Instant,
    sessions: Vec<SessionId>,
    rounds: HashMap<SessionId, LockBatch>,
    holds: HashMap<&'static str, LockGrant>,
    requests: HashMap<&'static str, (RequestId, RawLockKey)>,
    transaction: i64,
    steps: u32,
}

impl Play {
    pub(super) fn new(options: LockManagerOptions) -> Self {
        let now = Instant::now();
        Self {
            core: Core::new(options.0, fastrand::Rng::with_seed(7), now),
            now,
            sessions: Vec::new(),
            rounds: HashMap::new(),
            holds: HashMap::new(),
            requests: HashMap::new(),
            transaction: 0,
            steps: 0,
        }
    }

    /// With one session that is open, and idle.
    pub(super) fn opened(options: LockManagerOptions) -> Self {
        let mut play = Self::new(options);
        play.asks("first", 0, &LockOptions::no_wait());
        play.opens("s1");
        play.answers("s1", "n");
        play
    }

    fn id(&self, session: &str) -> SessionId {
        let number: usize = session[1..].parse().expect("a session's name");
        self.sessions[number - 1]
    }

    fn name(&mut self, session: SessionId) -> String {
        if session == SessionId::IN_PROCESS {
            return "process".to_owned();
        }
        let known = self.sessions.iter().position(|id| *id == session);
        let place = known.unwrap_or_else(|| {
            self.sessions.push(session);
            self.sessions.len() - 1
        });
        format!("s{}", place + 1)
    }

    /// What the core wants done now.
    pub(super) fn commands(&mut self) -> Vec<String> {
        let commands = self.core.take_commands(Vec::new());
        commands
            .into_iter()
            .map(|command| match command {
                Command::Open { session } => format!("open {}", self.name(session)),
                Command::RunBatch {
                    session,
                    batch: round,
                } => {
                    let text = format!("send {}:{}", self.name(session), spell(&round));
                    self.rounds.insert(session, round);
                    text
                }
                Command::WaitOnServer {
                    session,
                    key,
                    options,
                } => {
                    let limit = match options.wait() {
                        Wait::UpTo(limit) => format!("{limit:?}"),
                        Wait::Forever => "forever".to_owned(),
                        Wait::No => unreachable!("a wait waits"),
                    };
                    let mode = mode(options.lock_mode());
                    let key = number(key.raw());
                    format!("wait {}: {mode}{key} {limit}", self.name(session))
                }
                Command::Close { session } => format!("close {}", self.name(session)),
                Command::Terminate { session } => format!("abandon {}", self.name(session)),
                Command::SessionLost { session } => format!("lost {}", self.name(session)),
                Command::Granted {
                    waiter,
                    grant: hold,
                } => {
                    self.holds.insert(waiter, hold);
                    match hold.token {
                        Some(token) => format!("granted {waiter} with {token}"),
                        None => format!("granted {waiter}"),
                    }
                }
                Command::Failed { waiter, error } => {
                    format!("refused {waiter}: {:?}", error.kind())
                }
                Command::Released { waiter, result } => match result {
                    Ok(()) => format!("released {waiter}"),
                    Err(kind) => format!("released {waiter}: {kind:?}"),
                },
                Command::Closed { waiter } => format!("closed {waiter}"),
            })
            .collect()
    }

    pub(super) fn asks(
        &mut self,
        who: &'static str,
        key: i64,
        options: &LockOptions,
    ) -> Vec<String> {
        self.request(who, key, options, false)
    }

    /// With a fencing token.
    pub(super) fn asks_fenced(
        &mut self,
        who: &'static str,
        key: i64,
        options: &LockOptions,
    ) -> Vec<String> {
        self.request(who, key, options, true)
    }

    fn request(
        &mut self,
        who: &'static str,
        key: i64,
        options: &LockOptions,
        fenced: bool,
    ) -> Vec<String> {
        let key = LockKey::from(key);
        let space = key.raw();
        let id = self.core.request(key, options, fenced, who, self.now);
        self.requests.insert(who, (id, space));
        self.commands()
    }

    pub(super) fn cancels(&mut self, who: &'static str) -> Vec<String> {
        let (id, key) = self.requests[who];
        self.core.cancel(id, key, self.now);
        self.commands()
    }

    pub(super) fn releases(&mut self, who: &'static str) -> Vec<String> {
        let hold = self.holds[who];
        self.core.release(hold, Some(who), self.now);
        self.commands()
    }

    pub(super) fn drops(&mut self, who: &'static str) -> Vec<String> {
        let hold = self.holds[who];
        self.core.release(hold, None, self.now);
        self.commands()
    }

    pub(super) fn opens(&mut self, session: &str) -> Vec<String> {
        self.opens_to(session, Backend::Postgres)
    }

    pub(super) fn opens_to(&mut self, session: &str, backend: Backend) -> Vec<String> {
        let id = self.id(session);
        self.core
            .on_opened(id, Ok((backend, self.pid(session))), self.now);
        self.commands()
    }

    pub(super) fn cannot_open(&mut self, session: &str) -> Vec<String> {
        let id = self.id(session);
        let error = LockError::new(LockErrorKind::Pool);
        self.core.on_opened(id, Err(error), self.now);
        self.commands()
    }

    pub(super) fn generation(&self, session: &str) -> u64 {
        self.id(session).generation()
    }

    /// The server's session behind one of ours.
    pub(super) fn pid(&self, session: &str) -> i32 {
        100 + i32::try_from(self.id(session).generation()).expect("few sessions")
    }

    /// The answers to the last round: `y` or `n` for each step.
    pub(super) fn answers(&mut self, session: &str, answers: &str) -> Vec<String> {
        self.answers_as(session, answers, self.pid(session))
    }

    /// From this session of the server's.
    pub(super) fn answers_as(&mut self, session: &str, answers: &str, pid: i32) -> Vec<String> {
        let id = self.id(session);
        let round = self.rounds.get(&id).expect("a round was sent");
        assert_eq!(round.ops().len(), answers.len(), "{}", spell(round));
        let drawn = round
            .ops()
            .iter()
            .zip(answers.chars())
            .any(|(step, answer)| {
                answer == 'y'
                    && matches!(
                        step.kind(),
                        LockOpKind::Acquire { with_token: true } | LockOpKind::IssueToken
                    )
            });
        self.transaction += i64::from(drawn);
        let answers: Vec<_> = answers.chars().map(|a| (a == 'y').then_some(1)).collect();
        let row = BatchReply {
            answers: (!answers.is_empty()).then_some(answers),
            token: drawn.then_some(self.transaction),
            pid,
        };
        self.hears(session, Ok(row))
    }

    pub(super) fn hears(
        &mut self,
        session: &str,
        answer: Result<BatchReply, SessionError>,
    ) -> Vec<String> {
        let id = self.id(session);
        self.core.on_batch_result(id, answer, self.now);
        self.commands()
    }

    /// The server's lock table is full.
    pub(super) fn fails(&mut self, session: &str) -> Vec<String> {
        let error = SessionError::new("full").with_code(SqlState::new("53200"));
        self.hears(session, Err(error))
    }

    pub(super) fn dies(&mut self, session: &str) -> Vec<String> {
        self.hears(
            session,
            Err(SessionError::new("gone").with_disconnected(true)),
        )
    }

    pub(super) fn waited(&mut self, session: &str, waited: WaitOutcome) -> Vec<String> {
        let id = self.id(session);
        self.core.on_wait_ended(id, waited, self.now);
        self.commands()
    }

    pub(super) fn is_granted(&mut self, session: &str) -> Vec<String> {
        let pid = self.pid(session);
        self.waited(session, WaitOutcome::Granted { pid })
    }

    pub(super) fn is_gone(&mut self, session: &str) -> Vec<String> {
        let id = self.id(session);
        self.core.on_session_closed(id);
        self.commands()
    }

    /// Time passes, and nothing else happens.
    pub(super) fn later(&mut self, pause: Duration) -> Vec<String> {
        self.steps += 1;
        assert!(self.steps < 10_000, "the core does not come to rest");
        self.now += pause;
        self.core.run_due_timers(self.now);
        self.commands()
    }

    /// How long until the core has something to do.
    pub(super) fn next(&self) -> Option<Duration> {
        let at = self.core.next_timer()?;
        Some(at.saturating_duration_since(self.now))
    }

    /// Time passes until the core has something to do.
    pub(super) fn until_next(&mut self) -> Vec<String> {
        let pause = self.next().expect("nothing is to be done");
        self.later(pause)
    }

    pub(super) fn tokens_asked_of(&self, session: &str) -> TokenSource {
        self.rounds[&self.id(session)].tokens().clone()
    }

    pub(super) fn keys(&self) -> usize {
        self.core.keys.len()
    }

    pub(super) fn timers(&self) -> usize {
        self.core.timers.len()
    }
}

fn spell(round: &LockBatch) -> String {
    let steps = round.ops().iter().map(|step| {
        let what = match (round.mode(), step.kind()) {
            (BatchMode::Compensate, _) => "undo",
            (BatchMode::Execute, LockOpKind::Acquire { with_token: false }) => "take",
            (BatchMode::Execute, LockOpKind::Acquire { with_token: true }) => "take fenced",
            (BatchMode::Execute, LockOpKind::Release) => "give back",
            (BatchMode::Execute, LockOpKind::IssueToken) => "draw",
        };
        format!(" {what} {}{}", mode(step.mode()), number(step.key()))
    });
    let steps: Vec<_> = steps.collect();
    if steps.is_empty() {
        " ping".to_owned()
    } else {
        steps.join(",")
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
