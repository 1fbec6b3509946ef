//! Those who want locks.

use std::time::Duration;

use super::{Event, World};
use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::lock_manager::core::{LockGrant, RequestId, SessionId};
use crate::options::{LockMode, LockOptions, WaitStrategy};
use crate::session::TokenSource;

/// Somebody who wants one lock; or several, one after the other in one order, and then it is as many tasks.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) process: usize,
    pub(super) key: LockKey,
    pub(super) mode: LockMode,
    fenced: bool,
    request: Option<RequestId>,
    pub(super) hold: Option<LockGrant>,
    pub(super) given_back: bool,
    pub(super) lost: bool,
    held_at_release: bool,
    /// The keys it wants besides, and the task that has those before.
    then: Vec<LockKey>,
    parent: Option<u64>,
}

impl World {
    pub(super) fn arrive(&mut self) {
        self.to_come -= 1;
        if self.to_come > 0 {
            let pause = self.micros(if self.plan.crowd { 0..20 } else { 0..400 });
            self.at(pause, Event::Arrived);
        }
        let process = self.random.usize(0..self.cores.len());
        if self.plan.crowd {
            let options = LockOptions::wait_forever().interval(Duration::from_millis(4));
            let key = self.keys[0].clone();
            self.ask(process, key, &options, false, Vec::new(), None);
            return;
        }
        let first = self.random.usize(0..self.keys.len());
        let mut keys = self.keys[first..].to_vec();
        if self.random.u8(0..4) > 0 {
            keys.truncate(1);
        }
        let key = keys.remove(0);
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
        self.ask(process, key, &options, fenced, keys, None);
    }

    fn ask(
        &mut self,
        process: usize,
        key: LockKey,
        options: &LockOptions,
        fenced: bool,
        then: Vec<LockKey>,
        parent: Option<u64>,
    ) {
        self.serial += 1;
        let id = self.serial;
        let task = Task {
            process,
            key: key.clone(),
            mode: options.lock_mode(),
            fenced,
            request: None,
            hold: None,
            given_back: false,
            lost: false,
            held_at_release: false,
            then,
            parent,
        };
        self.tasks.insert(id, task);
        let now = self.now;
        self.served.entry(process).or_insert(now);
        let request = self.cores[process].request(key, options, fenced, id, now);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.request = Some(request);
        }
        if !self.plan.crowd && self.random.u8(0..8) == 0 {
            let delay = self.micros(0..2_000);
            self.at(delay, Event::Cancelled(process, id));
        }
        self.carry_out(process);
    }

    /// Somebody stops waiting; and is gone at times without a word, as when the grant is on its way.
    pub(super) fn cancel(&mut self, process: usize, id: u64) {
        let waiting = self.tasks.get(&id).filter(|task| task.hold.is_none());
        let Some((request, key)) = waiting.and_then(|task| Some((task.request?, task.key.raw())))
        else {
            return;
        };
        self.met.count("cancelled");
        self.finish(id);
        if self.random.u8(0..4) > 0 {
            let now = self.now;
            self.cores[process].cancel(request, key, now);
            self.carry_out(process);
        }
    }

    /// A task is over, and whoever has the keys before its own gives them back.
    pub(super) fn finish(&mut self, id: u64) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        if let Some(parent) = task.parent {
            self.at(Duration::ZERO, Event::Released(task.process, parent));
        }
        Some(task)
    }

    pub(super) fn release(&mut self, process: usize, id: u64) {
        let told = self.random.u8(0..4) > 0;
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let Some(hold) = task.hold else { return };
        let nothing = hold.session.is_none() || hold.session == Some(SessionId::IN_PROCESS);
        let held = (nothing && !task.lost) || self.is_held(task, hold);
        if let Some(task) = self.tasks.get_mut(&id) {
            (task.given_back, task.held_at_release) = (true, held);
        }
        if !told {
            self.finish(id);
        }
        let now = self.now;
        self.cores[process].release(hold, told.then_some(id), now);
        self.carry_out(process);
    }

    pub(super) fn released(&mut self, id: u64, result: Result<(), LockErrorKind>) {
        let task = self.finish(id).expect("a releaser");
        match result {
            Ok(()) => {
                self.met.count("released");
                assert!(task.held_at_release, "not held when given back: {task:?}");
            }
            Err(kind) => self.met.count(&format!("released {kind:?}")),
        }
    }

    pub(super) fn granted(&mut self, process: usize, id: u64, hold: LockGrant) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&id) else {
            // Its future was dropped: what arrives too late is given back.
            self.met.count("dropped before it was granted");
            self.cores[process].release(hold, None, now);
            return self.carry_out(process);
        };
        task.hold = Some(hold);
        assert_eq!(task.fenced, hold.token.is_some(), "{task:?}");
        let (key, mode, request) = (hold.key, task.mode, task.request);
        let then = std::mem::take(&mut task.then);
        self.note_grant(process, hold);
        if let Some(request) = request.filter(|_| hold.session.is_some()) {
            let before = self.last_granted.insert((process, key), request);
            assert!(before < Some(request), "out of turn");
        }
        let session = hold.session.map(|session| (process, session));
        if let Some(connection) = session.and_then(|session| self.connections.get(&session)) {
            let pid = connection.pid;
            if self.server.is_alive(pid) {
                assert!(self.server.holds(pid, key, mode), "not held: {hold:?}");
                self.check_token(hold, mode);
            }
            self.check_turn(process, key);
        } else {
            assert!(self.plan.without_locks, "granted on no session");
        }
        if then.is_empty() {
            let delay = self.micros(if self.plan.crowd { 0..200 } else { 0..3_000 });
            self.at(delay, Event::Released(process, id));
        } else {
            self.met.count("granted of several keys");
            let (next, rest) = (then[0].clone(), then[1..].to_vec());
            let limit = self.micros(0..20_000);
            let options = LockOptions::wait_up_to(limit);
            self.ask(process, next, &options, false, rest, Some(id));
        }
    }

    fn note_grant(&mut self, process: usize, hold: LockGrant) {
        *self.granted.entry(process).or_default() += 1;
        let before = self.served.insert(process, self.now);
        let waited = before.map_or(Duration::ZERO, |before| self.now - before);
        self.longest = self.longest.max(waited);
        self.met.count(match hold.session {
            None => "granted without locks",
            Some(SessionId::IN_PROCESS) => "granted in the process",
            Some(_) => "granted",
        });
        let sequence = matches!(
            self.plan.lockers[process].0.token_source,
            TokenSource::Sequence(_)
        );
        match hold.token {
            Some(_) if sequence && !self.plan.without_locks => {
                self.met.count("granted with a token of a sequence");
            }
            Some(_) => self.met.count("granted with a token"),
            None => {}
        }
        let own = hold
            .session
            .is_some_and(|session| self.cores[process].is_dedicated(session));
        if own {
            self.met.count("granted on a session of its own");
        }
    }

    /// Those who share a lock may be told in another order than they were let in.
    fn check_token(&mut self, hold: LockGrant, mode: LockMode) {
        let Some(token) = hold.token else { return };
        let (any, exclusive) = self.last_tokens.entry(hold.key).or_default();
        let alone = mode == LockMode::Exclusive;
        let before = if alone { *any } else { *exclusive };
        assert!(before < token, "the token does not grow");
        *any = token.max(*any);
        if alone {
            *exclusive = token;
        }
    }
}
