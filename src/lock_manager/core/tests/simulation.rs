//! Seeded simulation: lock managers of several processes over one simulated server, with tasks,
//! faults and simulated time.

mod commands;
mod events;
mod invariants;
mod plan;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::coverage::Coverage;
use super::server::Server;
use crate::key::{LockKey, RawLockKey};
use crate::lock_manager::core::{Core, RequestId, SessionId};
use crate::options::LockMode;
use crate::session::{Backend, BatchReply, LockBatch, SessionError};

use invariants::HandOffs;
use plan::EarlyEnd;
pub(super) use plan::Plan;
use tasks::Task;

#[derive(Debug)]
enum Event {
    ConnectionOpened(usize, SessionId),
    BatchArrives(usize, SessionId, LockBatch),
    /// A reply reaches the driver.
    ReplyArrives(usize, SessionId, Result<BatchReply, SessionError>),
    SessionEnded(usize, SessionId),
    /// The client's state of a connection is read.
    ConnectionChecked(usize, SessionId),
    /// A task releases its lock.
    TaskReleases(usize, u64),
    /// A task cancels its request.
    TaskCancels(usize, u64),
    /// A task starts.
    TaskArrives,
    /// The limit of a wait on the server passes.
    ServerWaitLimit(usize, SessionId),
    /// The last handle of a lock manager is dropped, also while locks are held.
    ShutDown(usize),
    /// A caller closes a lock manager, also while locks are held.
    Close(usize),
    /// The pool of a lock manager is closed.
    PoolClosed(usize),
}

/// State of a session outside the core.
#[derive(Clone, Copy, Debug)]
struct Connection {
    pid: i32,
    waits_for: Option<(RawLockKey, LockMode)>,
    /// Time since which the session has been dead or has owed a reply.
    silent: Option<Instant>,
}

pub(super) struct Simulation {
    plan: Plan,
    pub(super) cores: Vec<Core<u64>>,
    pub(super) server: Server,
    random: fastrand::Rng,
    pub(super) now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    last_id: u64,
    connections: BTreeMap<(usize, SessionId), Connection>,
    /// Sessions whose connections are being checked out.
    opening: BTreeSet<(usize, SessionId)>,
    tasks: HashMap<u64, Task>,
    keys: Vec<LockKey>,
    tasks_left: u32,
    /// Last token of all grants, and of exclusive grants.
    last_tokens: HashMap<RawLockKey, (i64, i64)>,
    last_granted_request: HashMap<(usize, RawLockKey), RequestId>,
    hand_offs: HashMap<(usize, RawLockKey), HandOffs>,
    /// Time of the last grant per process, and the longest time between two grants.
    last_grant_time: HashMap<usize, Instant>,
    pub(super) longest_gap: Duration,
    pub(super) grant_counts: HashMap<usize, u64>,
    pub(super) coverage: Coverage,
    /// Number of callers that close a lock manager.
    closers: u64,
    /// Processes whose commands are being performed.
    performing: BTreeSet<usize>,
}

impl Simulation {
    pub(super) fn new(plan: Plan) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let now = Instant::now();
        let options = plan.managers.iter();
        let cores = options.map(|options| {
            let core = Core::new(options.clone(), random.fork(), now);
            if plan.blocking {
                core
            } else {
                core.over_async_pool(plan::CONNECTION_CHECK_INTERVAL)
            }
        });
        Self {
            cores: cores.collect(),
            server: Server::new(plan.bad_sequence),
            now,
            events: BTreeMap::new(),
            last_id: 0,
            connections: BTreeMap::new(),
            opening: BTreeSet::new(),
            tasks: HashMap::new(),
            keys: (0..plan.keys).map(LockKey::from).collect(),
            tasks_left: 0,
            last_tokens: HashMap::new(),
            last_granted_request: HashMap::new(),
            hand_offs: HashMap::new(),
            last_grant_time: HashMap::new(),
            longest_gap: Duration::ZERO,
            grant_counts: HashMap::new(),
            coverage: Coverage::default(),
            closers: 0,
            performing: BTreeSet::new(),
            random,
            plan,
        }
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.last_id += 1;
        self.events.insert((self.now + delay, self.last_id), event);
    }

    fn random_micros(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.random.u64(range))
    }

    fn chance(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.random.u32(0..one_in) == 0
    }

    /// Runs until all tasks have ended, then checks that nothing is left.
    pub(super) fn run(&mut self) {
        self.tasks_left = self.plan.tasks;
        self.at(Duration::ZERO, Event::TaskArrives);
        let when = self.random_micros(0..20_000);
        match self.plan.early_end {
            Some(EarlyEnd::ShutDown) => self.at(when, Event::ShutDown(0)),
            Some(EarlyEnd::Close) => {
                self.closers += 1;
                self.at(when, Event::Close(0));
            }
            Some(EarlyEnd::PoolClosed) => self.at(when, Event::PoolClosed(0)),
            None => {}
        }
        while self.step() {
            if self.tasks.is_empty() && self.tasks_left == 0 {
                break;
            }
        }
        assert!(self.tasks.is_empty(), "unanswered: {:?}", self.tasks);
        self.end();
    }

    /// Closes every lock manager; then the server has no locks and no sessions.
    fn end(&mut self) {
        for process in 0..self.cores.len() {
            self.cores[process].close(u64::MAX);
            self.closers += 1;
            self.perform_commands(process);
        }
        while self.coverage.of("closed") < self.closers {
            assert!(
                self.step(),
                "a lock manager does not close: {:?}",
                self.cores
            );
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

    /// Performs the next event. `false`: there is none.
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
                    self.handle_event(event);
                }
            }
            (_, Some((at, process))) => {
                self.now = self.now.max(at);
                let now = self.now;
                self.cores[process].run_due_timers(now);
                let next = self.cores[process].next_timer();
                assert!(next.is_none_or(|next| next > now), "due timers are left");
                self.perform_commands(process);
            }
            (Some(_), None) => unreachable!("the first arm matches"),
            (None, None) => return false,
        }
        self.coverage.steps += 1;
        assert!(
            self.coverage.steps < 1_000_000,
            "the simulation does not end"
        );
        if self.chance(self.plan.faults.terminated) {
            let alive = self.server.sessions();
            if !alive.is_empty() {
                let pid = alive[self.random.usize(0..alive.len())];
                self.server.terminate(pid);
            }
        }
        self.report_server_waits();
        self.check();
        true
    }

    fn backend(&self) -> Backend {
        if self.plan.no_locks {
            Backend::Sqlite
        } else {
            Backend::Postgres
        }
    }
}
