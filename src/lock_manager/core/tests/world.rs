//! Lockers of several processes over one model server, with tasks that come and go and faults at every turn. Seeded; time is the world's.

mod checks;
mod happenings;
mod orders;
mod plan;
mod tasks;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::met::Met;
use super::server::Server;
use crate::key::{LockKey, RawLockKey};
use crate::lock_manager::core::{Core, RequestId, SessionId};
use crate::options::LockMode;
use crate::session::{Backend, BatchReply, LockBatch, SessionError};

use checks::Turns;
pub(super) use plan::Plan;
use tasks::Task;

#[derive(Debug)]
enum Event {
    Opened(usize, SessionId),
    Ran(usize, SessionId, LockBatch),
    /// What was answered arrives.
    Arrives(usize, SessionId, Result<BatchReply, SessionError>),
    Gone(usize, SessionId),
    /// A task gives its lock back.
    Released(usize, u64),
    /// A task stops waiting.
    Cancelled(usize, u64),
    /// A new task comes.
    Arrived,
    /// A session's wait on the server reaches its limit.
    Limit(usize, SessionId),
    /// The last user of a locker goes, whoever holds what.
    ShutDown(usize),
}

/// A session as the world sees it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    pid: i32,
    waits: Option<(RawLockKey, LockMode)>,
    /// Since when it has been dead, or has left a round without an answer.
    silent: Option<Instant>,
}

pub(super) struct World {
    plan: Plan,
    pub(super) cores: Vec<Core<u64>>,
    pub(super) server: Server,
    random: fastrand::Rng,
    pub(super) now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    connections: BTreeMap<(usize, SessionId), Connection>,
    tasks: HashMap<u64, Task>,
    keys: Vec<LockKey>,
    to_come: u32,
    /// Of every grant, and of the exclusive ones.
    last_tokens: HashMap<RawLockKey, (i64, i64)>,
    last_granted: HashMap<(usize, RawLockKey), RequestId>,
    turns: HashMap<(usize, RawLockKey), Turns>,
    /// When each process was last granted something, and the longest that one waited for that.
    served: HashMap<usize, Instant>,
    pub(super) longest: Duration,
    pub(super) granted: HashMap<usize, u64>,
    pub(super) met: Met,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let now = Instant::now();
        let options = plan.lockers.iter();
        let cores = options.map(|options| Core::new(options.0.clone(), random.fork(), now));
        Self {
            cores: cores.collect(),
            server: Server::new(plan.unfit),
            now,
            events: BTreeMap::new(),
            serial: 0,
            connections: BTreeMap::new(),
            tasks: HashMap::new(),
            keys: (0..plan.keys).map(LockKey::from).collect(),
            to_come: 0,
            last_tokens: HashMap::new(),
            last_granted: HashMap::new(),
            turns: HashMap::new(),
            served: HashMap::new(),
            longest: Duration::ZERO,
            granted: HashMap::new(),
            met: Met::default(),
            random,
            plan,
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

    /// Lets the tasks come, runs until all are gone, and checks that nothing is left.
    pub(super) fn run(&mut self) {
        self.to_come = self.plan.tasks;
        self.at(Duration::ZERO, Event::Arrived);
        if self.plan.shut_down {
            let when = self.micros(0..20_000);
            self.at(when, Event::ShutDown(0));
        }
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
        while self.met.of("closed") < self.cores.len() as u64 {
            assert!(self.step(), "a locker does not close: {:?}", self.cores);
        }
        for core in &self.cores {
            assert!(core.is_finished());
            assert!(core.keys.is_empty(), "{:?}", core.keys);
            assert!(core.timers.is_empty(), "{:?}", core.timers);
        }
        assert_eq!(self.server.locks(), 0, "{:?}", self.server);
        assert!(self.connections.is_empty(), "{:?}", self.connections);
        assert_eq!(self.server.sessions(), [0; 0], "sessions are left");
    }

    /// The next thing happens. `false`: nothing will.
    fn step(&mut self) -> bool {
        let timers = self.cores.iter().enumerate();
        let timer = timers
            .filter_map(|(process, core)| Some((core.next_timer()?, process)))
            .min();
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        match (event, timer) {
            (Some(at), timer) if timer.is_none_or(|(timer, _)| at <= timer) => {
                self.now = self.now.max(at);
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(event);
                }
            }
            (_, Some((at, process))) => {
                self.now = self.now.max(at);
                let now = self.now;
                self.cores[process].run_due_timers(now);
                let next = self.cores[process].next_timer();
                assert!(next.is_none_or(|next| next > now), "a tick leaves work");
                self.carry_out(process);
            }
            (Some(_), None) => unreachable!("the first arm has it"),
            (None, None) => return false,
        }
        self.met.steps += 1;
        assert!(self.met.steps < 1_000_000, "it does not come to an end");
        if self.chance(self.plan.faults.terminated) {
            let alive = self.server.sessions();
            if !alive.is_empty() {
                let pid = alive[self.random.usize(0..alive.len())];
                self.server.terminate(pid);
            }
        }
        self.grants_arrive();
        self.check();
        true
    }

    fn backend(&self) -> Backend {
        if self.plan.without_locks {
            Backend::Sqlite
        } else {
            Backend::Postgres
        }
    }
}
