//! Lockers of several processes over one model server, with tasks that come and go and faults at every turn. Seeded; time is the world's.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::server::Server;
use crate::backends::postgres::classify;
use crate::error::{LockError, LockErrorKind};
use crate::key::{KeySpace, LockKey};
use crate::locker::core::{Command, Core, Hold, RequestId, SessionId, Waited};
use crate::locker::options::LockerOptions;
use crate::options::{LockMode, LockOptions, WaitStrategy};
use crate::session::{Backend, Round, SessionError};

/// What can go wrong, each once in so many chances; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A session ends, at any time.
    pub(super) terminated: u32,
    /// A round fails in its midst.
    pub(super) failed: u32,
    /// A round runs, and its answer is lost with the session.
    pub(super) lost: u32,
    /// A round is never answered.
    pub(super) silent: u32,
    /// No connection can be had.
    pub(super) unopened: u32,
}

#[derive(Debug)]
enum Event {
    Opened(usize, SessionId),
    Ran(usize, SessionId, Round),
    /// What was answered arrives.
    Arrives(
        usize,
        SessionId,
        Result<crate::session::RoundRow, SessionError>,
    ),
    Gone(usize, SessionId),
    /// A task gives its lock back.
    Released(usize, u64),
    /// A task stops waiting.
    Cancelled(usize, u64),
    /// A new task comes.
    Arrived,
    /// A session's wait on the server reaches its limit.
    Limit(usize, SessionId),
}

#[derive(Debug)]
struct Task {
    process: usize,
    key: LockKey,
    mode: LockMode,
    fenced: bool,
    request: Option<RequestId>,
    hold: Option<Hold>,
    /// When it gave the lock back, and whether it was held then.
    held_at_release: Option<bool>,
}

/// A session as the world sees it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    pid: i32,
    waits: Option<(KeySpace, LockMode)>,
}

pub(super) struct World {
    pub(super) cores: Vec<Core<u64>>,
    pub(super) server: Server,
    faults: Faults,
    random: fastrand::Rng,
    pub(super) now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    connections: HashMap<(usize, SessionId), Connection>,
    tasks: HashMap<u64, Task>,
    keys: Vec<LockKey>,
    to_come: u32,
    /// Of every grant, and of the exclusive ones.
    last_tokens: HashMap<KeySpace, (i64, i64)>,
    last_granted: HashMap<(usize, KeySpace), RequestId>,
    pub(super) figures: Figures,
}

#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) granted: HashMap<usize, u64>,
    pub(super) refused: HashMap<LockErrorKind, u64>,
    pub(super) released: u64,
    pub(super) lost: u64,
    pub(super) rounds: u64,
    pub(super) closed: u64,
}

impl World {
    pub(super) fn new(seed: u64, processes: usize, keys: usize, faults: Faults) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let now = Instant::now();
        let options = [
            LockerOptions::new(),
            LockerOptions::new().sessions(3).waiting_sessions(2),
            LockerOptions::new().hand_off(3, Duration::from_millis(5)),
            LockerOptions::new().hand_off(0, Duration::ZERO),
        ];
        let cores = (0..processes).map(|at| {
            let options = options[(at + seed as usize) % options.len()].clone();
            Core::new(options.0, random.fork(), now)
        });
        let cores = cores.collect();
        Self {
            cores,
            server: Server::default(),
            faults,
            now,
            events: BTreeMap::new(),
            serial: 0,
            connections: HashMap::new(),
            tasks: HashMap::new(),
            keys: (0..keys).map(|at| LockKey::from(at as i64)).collect(),
            to_come: 0,
            last_tokens: HashMap::new(),
            last_granted: HashMap::new(),
            figures: Figures::default(),
            random,
        }
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + delay, self.serial), event);
    }

    fn micros(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.random.u64(range))
    }

    fn chance(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.random.u32(0..one_in) == 0
    }

    /// Lets so many tasks come, runs until all are gone, and checks that nothing is left.
    pub(super) fn run(&mut self, tasks: u32) {
        self.to_come = tasks;
        self.at(Duration::ZERO, Event::Arrived);
        while self.step() {
            if self.tasks.is_empty() && self.to_come == 0 {
                break;
            }
        }
        assert!(self.tasks.is_empty(), "unanswered: {:?}", self.tasks);
        self.end();
    }

    /// Every locker is closed; then the server has no locks and no sessions of theirs.
    fn end(&mut self) {
        for process in 0..self.cores.len() {
            let now = self.now;
            self.cores[process].close(u64::MAX, now);
            self.carry_out(process);
        }
        while self.figures.closed < self.cores.len() as u64 {
            assert!(self.step(), "a locker does not close: {:?}", self.cores);
        }
        assert_eq!(self.server.locks(), 0, "{:?}", self.server);
        assert!(self.connections.is_empty(), "{:?}", self.connections);
        assert_eq!(self.server.sessions(), [0; 0], "sessions are left");
    }

    /// The next thing happens. `false`: nothing will.
    fn step(&mut self) -> bool {
        let alarm = self
            .cores
            .iter()
            .enumerate()
            .filter_map(|(process, core)| Some((core.next_alarm()?, process)))
            .min();
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        match (event, alarm) {
            (Some(at), alarm) if alarm.is_none_or(|(alarm, _)| at <= alarm) => {
                self.now = self.now.max(at);
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(event);
                }
            }
            (_, Some((at, process))) => {
                self.now = self.now.max(at);
                let now = self.now;
                self.cores[process].tick(now);
                self.carry_out(process);
            }
            (Some(_), None) => unreachable!("the first arm has it"),
            (None, None) => return false,
        }
        if self.chance(self.faults.terminated) {
            let alive = self.server.sessions();
            if !alive.is_empty() {
                let pid = alive[self.random.usize(0..alive.len())];
                self.server.terminate(pid);
            }
        }
        self.grants_arrive();
        self.check_exclusion();
        true
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrived => self.arrive(),
            Event::Opened(process, session) => {
                let opened = if self.chance(self.faults.unopened) {
                    Err(LockError::new(LockErrorKind::Pool))
                } else {
                    let pid = self.server.connect();
                    let connection = Connection { pid, waits: None };
                    self.connections.insert((process, session), connection);
                    Ok((Backend::Postgres, pid))
                };
                self.cores[process].opened(session, opened, now);
                self.carry_out(process);
            }
            Event::Ran(process, session, round) => self.ran(process, session, &round),
            Event::Arrives(process, session, answer) => {
                self.cores[process].answered(session, answer, now);
                self.carry_out(process);
            }
            Event::Gone(process, session) => {
                self.cores[process].closed(session);
                self.carry_out(process);
            }
            Event::Released(process, task) => self.release(process, task),
            Event::Cancelled(process, id) => {
                let waiting = self.tasks.get(&id).filter(|task| task.hold.is_none());
                if let Some((request, key)) =
                    waiting.and_then(|task| Some((task.request?, task.key.space())))
                {
                    self.tasks.remove(&id);
                    self.cores[process].cancel(request, key, now);
                    self.carry_out(process);
                }
            }
            Event::Limit(process, session) => {
                let connection = self.connections.get_mut(&(process, session));
                if let Some((pid, (key, _))) =
                    connection.and_then(|c| Some((c.pid, c.waits.take()?)))
                {
                    self.server.leave_queue(pid, key);
                    let waited = if self.server.is_alive(pid) {
                        Waited::TimedOut
                    } else {
                        Waited::Failed(LockError::new(LockErrorKind::Database))
                    };
                    self.end_connection(process, session, false);
                    self.cores[process].waited(session, waited, now);
                    self.carry_out(process);
                }
            }
        }
    }

    /// A round reaches the server.
    fn ran(&mut self, process: usize, session: SessionId, round: &Round) {
        let Some(Connection { pid, .. }) = self.connections.get(&(process, session)).copied()
        else {
            return;
        };
        self.figures.rounds += 1;
        let gone =
            || Err(SessionError::new("the model's session has ended").with_disconnected(true));
        let answer = if !self.server.is_alive(pid) {
            gone()
        } else {
            let steps = round.steps().len();
            let fails = self.chance(self.faults.failed) && steps > 0;
            let fail_at = fails.then(|| self.random.usize(0..steps));
            let answer = self.server.run(pid, round, fail_at);
            if self.chance(self.faults.lost) {
                self.server.terminate(pid);
                gone()
            } else {
                answer
            }
        };
        if let Err(error) = &answer {
            assert!(
                error.is_disconnected() || classify(error.code()) == LockErrorKind::TooManyLocks
            );
        }
        if !self.chance(self.faults.silent) {
            let delay = self.micros(20..60);
            self.at(delay, Event::Arrives(process, session, answer));
        }
    }

    /// Waits that the server has granted are told.
    fn grants_arrive(&mut self) {
        let waiting: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((*id, connection.pid, connection.waits?)))
            .collect();
        for ((process, session), pid, (key, mode)) in waiting {
            let waited = if !self.server.is_alive(pid) {
                let lost = LockError::new(LockErrorKind::Database);
                Waited::Failed(lost)
            } else if self.server.holds(pid, key, mode) {
                Waited::Granted { pid }
            } else {
                continue;
            };
            if let Some(connection) = self.connections.get_mut(&(process, session)) {
                connection.waits = None;
            }
            let now = self.now;
            self.cores[process].waited(session, waited, now);
            self.carry_out(process);
        }
    }

    fn arrive(&mut self) {
        self.to_come -= 1;
        if self.to_come > 0 {
            let pause = self.micros(0..400);
            self.at(pause, Event::Arrived);
        }
        self.serial += 1;
        let id = self.serial;
        let process = self.random.usize(0..self.cores.len());
        let key = self.keys[self.random.usize(0..self.keys.len())].clone();
        let limit = self.micros(0..20_000);
        let options = match self.random.u8(0..5) {
            0 => LockOptions::no_wait(),
            1 => LockOptions::wait_up_to(limit),
            2 => LockOptions::wait_up_to(limit).strategy(WaitStrategy::Block),
            3 => LockOptions::wait_forever().strategy(WaitStrategy::Block),
            _ => LockOptions::wait_forever().interval(Duration::from_millis(4)),
        };
        let options = if self.random.u8(0..3) == 0 {
            options.shared()
        } else {
            options
        };
        let fenced = self.random.u8(0..3) == 0;
        let task = Task {
            process,
            key: key.clone(),
            mode: options.lock_mode(),
            fenced,
            request: None,
            hold: None,
            held_at_release: None,
        };
        self.tasks.insert(id, task);
        let now = self.now;
        let request = self.cores[process].request(key, &options, fenced, id, now);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.request = Some(request);
        }
        if self.random.u8(0..8) == 0 {
            let delay = self.micros(0..2_000);
            self.at(delay, Event::Cancelled(process, id));
        }
        self.carry_out(process);
    }

    fn release(&mut self, process: usize, id: u64) {
        let told = self.random.u8(0..4) > 0;
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let Some(hold) = task.hold else { return };
        let pid = hold
            .session
            .and_then(|session| self.connections.get(&(process, session)));
        let held =
            pid.is_some_and(|connection| self.server.holds(connection.pid, hold.key, task.mode));
        task.held_at_release = Some(held);
        if !told {
            self.tasks.remove(&id);
        }
        let now = self.now;
        self.cores[process].release(hold, told.then_some(id), now);
        self.carry_out(process);
    }

    fn carry_out(&mut self, process: usize) {
        for command in self.cores[process].commands() {
            match command {
                Command::Open { session } => {
                    let delay = self.micros(100..1_000);
                    self.at(delay, Event::Opened(process, session));
                }
                Command::Send { session, round } => {
                    let delay = self.micros(20..60);
                    self.at(delay, Event::Ran(process, session, round));
                }
                Command::Wait {
                    session,
                    key,
                    options,
                } => {
                    let known = self.connections.get(&(process, session)).map(|c| c.pid);
                    let pid = known.unwrap_or_else(|| self.server.connect());
                    let mode = options.lock_mode();
                    let waits = Some((key.space(), mode));
                    self.connections
                        .insert((process, session), Connection { pid, waits });
                    if self.server.is_alive(pid) {
                        self.server.wait(pid, key.space(), mode);
                    }
                    if let crate::options::Wait::UpTo(limit) = options.wait() {
                        self.at(limit, Event::Limit(process, session));
                    }
                }
                Command::Close { session } => {
                    if let Some(connection) = self.connections.get(&(process, session)) {
                        let pid = connection.pid;
                        for key in &self.keys {
                            for mode in [LockMode::Exclusive, LockMode::Shared] {
                                let held = self.server.holds(pid, key.space(), mode);
                                assert!(!held, "given to the pool with {key}");
                            }
                        }
                    }
                    self.end_connection(process, session, true);
                }
                Command::Abandon { session } => self.end_connection(process, session, true),
                Command::Lost { session } => {
                    for task in self.tasks.values_mut() {
                        let on_it = task.hold.is_some_and(|hold| hold.session == Some(session));
                        if on_it && task.process == process {
                            self.figures.lost += 1;
                        }
                    }
                }
                Command::Granted { waiter, hold } => self.granted(process, waiter, hold),
                Command::Refused { waiter, error } => {
                    *self.figures.refused.entry(error.kind()).or_default() += 1;
                    self.tasks.remove(&waiter);
                }
                Command::Released { waiter, result } => {
                    let task = self.tasks.remove(&waiter).expect("a releaser");
                    self.figures.released += 1;
                    if result.is_ok() {
                        assert_eq!(
                            task.held_at_release,
                            Some(true),
                            "not held when given back: {task:?}"
                        );
                    }
                }
                Command::Closed { .. } => self.figures.closed += 1,
            }
        }
    }

    /// The connection goes; the server ends its session.
    fn end_connection(&mut self, process: usize, session: SessionId, tell: bool) {
        if let Some(connection) = self.connections.remove(&(process, session)) {
            self.server.terminate(connection.pid);
        }
        if tell {
            let delay = self.micros(0..100);
            self.at(delay, Event::Gone(process, session));
        }
    }

    fn granted(&mut self, process: usize, id: u64, hold: Hold) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&id) else {
            // Its future was dropped: what arrives too late is given back.
            self.cores[process].release(hold, None, now);
            return self.carry_out(process);
        };
        *self.figures.granted.entry(process).or_default() += 1;
        assert!(!task.fenced || hold.token.is_some(), "no token: {task:?}");
        assert!(task.fenced || hold.token.is_none());
        let (key, mode) = (hold.key, task.mode);
        task.hold = Some(hold);
        if let Some(request) = task.request {
            let before = self.last_granted.insert((process, key), request);
            assert!(before < Some(request), "out of turn");
        }
        let connection = hold
            .session
            .and_then(|session| self.connections.get(&(process, session)));
        let pid = connection
            .map(|connection| connection.pid)
            .expect("granted on no session");
        if self.server.is_alive(pid) {
            assert!(self.server.holds(pid, key, mode), "not held: {hold:?}");
            if let Some(token) = hold.token {
                // Those who share it may be told in another order than they were let in.
                let (any, exclusive) = self.last_tokens.entry(key).or_default();
                let before = if mode == LockMode::Exclusive {
                    *any
                } else {
                    *exclusive
                };
                assert!(before < token, "the token does not grow");
                *any = token.max(*any);
                if mode == LockMode::Exclusive {
                    *exclusive = token;
                }
            }
        }
        let delay = self.micros(0..3_000);
        self.at(delay, Event::Released(process, id));
    }

    /// An exclusive lock is one task's, among those whose sessions live.
    fn check_exclusion(&self) {
        let mut holders: HashMap<KeySpace, Vec<LockMode>> = HashMap::new();
        for task in self.tasks.values() {
            let Some(hold) = task.hold.filter(|_| task.held_at_release.is_none()) else {
                continue;
            };
            let connection = hold
                .session
                .and_then(|session| self.connections.get(&(task.process, session)));
            if connection.is_some_and(|connection| self.server.is_alive(connection.pid)) {
                holders.entry(hold.key).or_default().push(task.mode);
            }
        }
        for (key, modes) in holders {
            let alone = modes.len() == 1 || !modes.contains(&LockMode::Exclusive);
            assert!(alone, "{key:?} is held {modes:?}");
        }
    }
}
