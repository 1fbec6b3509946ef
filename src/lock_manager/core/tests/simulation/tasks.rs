//! Tasks that acquire and release locks.

use std::time::{Duration, Instant};

use super::{Event, Simulation};
use crate::error::LockErrorKind;
use crate::key::{LockKey, RawLockKey};
use crate::lock_manager::core::{LockGrant, RequestId, RequestKind, SessionId};
use crate::options::{LockMode, LockOptions, WaitStrategy};
use crate::pool::MIN_CHECKOUT;
use crate::session::TokenSource;

/// Task that acquires one lock. Several locks are acquired by as many tasks, in ascending order.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) process: usize,
    pub(super) key: LockKey,
    pub(super) mode: LockMode,
    fenced: bool,
    request: Option<RequestId>,
    pub(super) grant: Option<LockGrant>,
    pub(super) released: bool,
    pub(super) lost: bool,
    held_at_release: bool,
    /// End of the wait for other holders.
    deadline: Option<Instant>,
    since: Instant,
    is_waiting: bool,
    /// Keys to acquire after this one, and the task that holds the previous key.
    more_keys: Vec<LockKey>,
    parent: Option<u64>,
}

impl Simulation {
    pub(super) fn spawn_task(&mut self) {
        self.tasks_left -= 1;
        if self.tasks_left > 0 {
            let pause = self.random_micros(if self.plan.single_hot_key {
                0..20
            } else {
                0..400
            });
            self.at(pause, Event::TaskArrives);
        }
        let process = self.random.usize(0..self.cores.len());
        if self.plan.single_hot_key {
            let options = LockOptions::wait_forever().interval(Duration::from_millis(4));
            let key = self.keys[0].clone();
            self.add_request(process, key, &options, RequestKind::Plain, Vec::new(), None);
            return;
        }
        let first = self.random.usize(0..self.keys.len());
        let mut keys = self.keys[first..].to_vec();
        if self.random.u8(0..4) > 0 {
            keys.truncate(1);
        }
        let key = keys.remove(0);
        let limit = self.random_micros(0..20_000);
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
        let kind = match self.random.u8(0..6) {
            0 | 1 => RequestKind::Fenced,
            2 => RequestKind::OneOfSeveral,
            _ => RequestKind::Plain,
        };
        self.add_request(process, key, &options, kind, keys, None);
    }

    fn add_request(
        &mut self,
        process: usize,
        key: LockKey,
        options: &LockOptions,
        kind: RequestKind,
        more_keys: Vec<LockKey>,
        parent: Option<u64>,
    ) {
        self.last_id += 1;
        let id = self.last_id;
        let task = Task {
            process,
            key: key.clone(),
            mode: options.mode,
            fenced: kind == RequestKind::Fenced,
            request: None,
            grant: None,
            released: false,
            lost: false,
            held_at_release: false,
            deadline: options
                .remaining(Duration::ZERO)
                .filter(|limit| !limit.is_zero())
                .map(|limit| self.now + limit),
            since: self.now,
            is_waiting: false,
            more_keys,
            parent,
        };
        self.tasks.insert(id, task);
        let now = self.now;
        self.last_grant_time.entry(process).or_insert(now);
        let request = self.cores[process].request(key, options, kind, id, now);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.request = Some(request);
        }
        if !self.plan.single_hot_key && self.random.u8(0..8) == 0 {
            let delay = self.random_micros(0..2_000);
            self.at(delay, Event::TaskCancels(process, id));
        }
        self.perform_commands(process);
    }

    /// Handles the report that a request waits.
    pub(super) fn waits(&mut self, process: usize, request: RequestId, key: RawLockKey) {
        // As the driver, which reports no wait of a request that has its response.
        let Some(id) = self.cores[process].waiter(request, key).copied() else {
            return;
        };
        self.coverage.count("waits");
        if let Some(task) = self.tasks.get_mut(&id) {
            assert!(!task.is_waiting, "waits twice: {task:?}");
            assert!(task.grant.is_none(), "waits after the grant: {task:?}");
            task.is_waiting = true;
        }
    }

    /// Checks that each limit is respected.
    pub(super) fn check_deadlines(&self) {
        for task in self.tasks.values().filter(|task| task.grant.is_none()) {
            // The first answer may come later than the limit.
            let answered = if task.is_waiting {
                task.since
            } else {
                task.since + MIN_CHECKOUT
            };
            let deadline = task.deadline.map(|deadline| deadline.max(answered));
            let is_late = deadline.is_some_and(|deadline| deadline < self.now);
            assert!(!is_late, "waits beyond its limit: {task:?}");
        }
    }

    /// Cancels a request. Sometimes without a message to the core, as if the grant was on its way.
    pub(super) fn cancel(&mut self, process: usize, id: u64) {
        let waiting = self.tasks.get(&id).filter(|task| task.grant.is_none());
        let Some((request, key)) = waiting.and_then(|task| Some((task.request?, task.key.raw())))
        else {
            return;
        };
        self.coverage.count("cancelled");
        self.finish(id);
        if self.random.u8(0..4) > 0 {
            let now = self.now;
            self.cores[process].cancel(request, key, now);
            self.perform_commands(process);
        }
    }

    /// Ends a task; the task that holds the previous key then releases it.
    pub(super) fn finish(&mut self, id: u64) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        if let Some(parent) = task.parent {
            self.at(Duration::ZERO, Event::TaskReleases(task.process, parent));
        }
        Some(task)
    }

    pub(super) fn release(&mut self, process: usize, id: u64) {
        let acked = self.random.u8(0..4) > 0;
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let Some(grant) = task.grant else { return };
        let no_session = grant.session.is_none() || grant.session == Some(SessionId::IN_PROCESS);
        let held = (no_session && !task.lost) || self.is_held(task, grant);
        if let Some(task) = self.tasks.get_mut(&id) {
            (task.released, task.held_at_release) = (true, held);
        }
        if !acked {
            self.finish(id);
        }
        let now = self.now;
        self.cores[process].release(grant, acked.then_some(id), now);
        self.perform_commands(process);
    }

    pub(super) fn released(&mut self, id: u64, result: Result<(), LockErrorKind>) {
        let task = self.finish(id).expect("a releaser");
        match result {
            Ok(()) => {
                self.coverage.count("released");
                assert!(task.held_at_release, "not held when released: {task:?}");
            }
            Err(kind) => self.coverage.count(&format!("released {kind:?}")),
        }
    }

    pub(super) fn granted(&mut self, process: usize, id: u64, grant: LockGrant) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&id) else {
            // The future was dropped, so its late grant is released.
            self.coverage.count("granted after cancellation");
            self.cores[process].release(grant, None, now);
            return self.perform_commands(process);
        };
        task.grant = Some(grant);
        assert_eq!(task.fenced, grant.token.is_some(), "{task:?}");
        let (key, mode, request) = (grant.key, task.mode, task.request);
        let more_keys = std::mem::take(&mut task.more_keys);
        self.count_grant(process, grant);
        if let Some(request) = request.filter(|_| grant.session.is_some()) {
            let before = self.last_granted_request.insert((process, key), request);
            assert!(before < Some(request), "granted out of order");
        }
        let session = grant.session.map(|session| (process, session));
        if let Some(connection) = session.and_then(|session| self.connections.get(&session)) {
            let pid = connection.pid;
            if self.server.is_alive(pid) {
                assert!(self.server.holds(pid, key, mode), "not held: {grant:?}");
                self.check_token(grant, mode);
            }
            self.check_hand_off_limit(process, key);
        } else {
            assert!(self.plan.no_locks, "granted on no session");
        }
        if more_keys.is_empty() {
            let delay = self.random_micros(if self.plan.single_hot_key {
                0..200
            } else {
                0..3_000
            });
            self.at(delay, Event::TaskReleases(process, id));
        } else {
            self.coverage.count("granted of several keys");
            let (next, rest) = (more_keys[0].clone(), more_keys[1..].to_vec());
            let limit = self.random_micros(0..20_000);
            let options = LockOptions::wait_up_to(limit);
            self.add_request(process, next, &options, RequestKind::Plain, rest, Some(id));
        }
    }

    fn count_grant(&mut self, process: usize, grant: LockGrant) {
        *self.grant_counts.entry(process).or_default() += 1;
        let before = self.last_grant_time.insert(process, self.now);
        let waited = before.map_or(Duration::ZERO, |before| self.now - before);
        self.longest_gap = self.longest_gap.max(waited);
        self.coverage.count(match grant.session {
            None => "granted without locks",
            Some(SessionId::IN_PROCESS) => "granted in the process",
            Some(_) => "granted",
        });
        let sequence = matches!(
            self.plan.managers[process].token_source,
            TokenSource::Sequence(_)
        );
        match grant.token {
            Some(_) if sequence && !self.plan.no_locks => {
                self.coverage.count("granted with a token of a sequence");
            }
            Some(_) => self.coverage.count("granted with a token"),
            None => {}
        }
        let own = grant
            .session
            .is_some_and(|session| self.cores[process].is_dedicated(session));
        if own {
            self.coverage.count("granted on a dedicated session");
        }
    }

    /// Responses to sharers may arrive in another order than the grants.
    fn check_token(&mut self, grant: LockGrant, mode: LockMode) {
        let Some(token) = grant.token else { return };
        let (any, exclusive) = self.last_tokens.entry(grant.key).or_default();
        let alone = mode == LockMode::Exclusive;
        let before = if alone { *any } else { *exclusive };
        assert!(before < token, "the token does not grow");
        *any = token.max(*any);
        if alone {
            *exclusive = token;
        }
    }
}
