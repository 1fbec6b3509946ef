//! Who goes next, and what goes wrong.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use advisory_locking::session::BatchKind;

use crate::client::client;
use crate::line::{Done, Message, Waiting, execute};
use crate::model::Code;
use crate::world::{State, World};

/// More than any play takes.
const STEPS: u64 = 50_000;

/// What a play came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Met {
    pub(crate) steps: u64,
    pub(crate) granted: u64,
    pub(crate) succeeded: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) deadlocks: u64,
    pub(crate) exchanged: u64,
    pub(crate) dropped: u64,
    pub(crate) refusals: u64,
    pub(crate) done_but_reported: u64,
    pub(crate) granted_but_reported: u64,
    pub(crate) replies_lost: u64,
    pub(crate) expired: u64,
    pub(crate) cancelled: u64,
    pub(crate) terminated: u64,
}

impl Met {
    pub(crate) fn counts(&self) -> [(&'static str, u64); 16] {
        [
            ("steps", self.steps),
            ("granted", self.granted),
            ("succeeded", self.succeeded),
            ("refused", self.refused),
            ("failed", self.failed),
            ("lost", self.lost),
            ("deadlocks", self.deadlocks),
            ("answered by another session", self.exchanged),
            ("dropped", self.dropped),
            ("refused by a fault", self.refusals),
            ("done, but reported as failed", self.done_but_reported),
            ("granted, but reported as failed", self.granted_but_reported),
            ("replies lost", self.replies_lost),
            ("waits expired", self.expired),
            ("waits cancelled", self.cancelled),
            ("sessions ended", self.terminated),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.granted += other.granted;
        self.succeeded += other.succeeded;
        self.refused += other.refused;
        self.failed += other.failed;
        self.lost += other.lost;
        self.deadlocks += other.deadlocks;
        self.exchanged += other.exchanged;
        self.dropped += other.dropped;
        self.refusals += other.refusals;
        self.done_but_reported += other.done_but_reported;
        self.granted_but_reported += other.granted_but_reported;
        self.replies_lost += other.replies_lost;
        self.expired += other.expired;
        self.cancelled += other.cancelled;
        self.terminated += other.terminated;
    }
}

/// What can happen next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client goes on.
    Poll(usize),
    /// The server takes the next message of a line.
    Deliver(usize),
    /// The server looks what became of a wait.
    Look(usize),
}

/// Plays one seed to its end.
pub(crate) fn play(seed: u64, traces: bool) -> Met {
    // For the pauses of the library.
    fastrand::seed(seed);
    let clients = 2 + (seed % 4) as usize;
    let world = World::new(seed, clients, traces);
    let mut futures: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>> = (0..clients)
        .map(|number| {
            Some(Box::pin(client(world.clone(), number)) as Pin<Box<dyn Future<Output = ()>>>)
        })
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < STEPS, "it does not end");
        let event = world
            .state()
            .choose(&futures.iter().map(Option::is_some).collect::<Vec<_>>());
        let Some(event) = event else { break };
        match event {
            Event::Poll(number) => {
                world.state().runnable[number] = false;
                if let Some(future) = &mut futures[number]
                    && future.as_mut().poll(&mut context).is_ready()
                {
                    futures[number] = None;
                }
            }
            Event::Deliver(line) => world.state().deliver(line),
            Event::Look(line) => world.state().look(line),
        }
        world.state().check();
    }
    let mut state = world.state();
    assert!(futures.iter().all(Option::is_none), "a client hangs");
    for pid in std::mem::take(&mut state.strays) {
        state.server.terminate(pid);
    }
    for key in 0..3 {
        let left = state.server.held(advisory_locking::KeySpace::Single(key));
        assert!(left.is_empty(), "left at the end: {left:?}");
    }
    state.met.steps = steps;
    state.met.clone()
}

impl State {
    /// The next event; nothing when all is over.
    fn choose(&mut self, playing: &[bool]) -> Option<Event> {
        if playing.contains(&true) {
            self.interfere();
        }
        let mut events = Vec::new();
        for (number, playing) in playing.iter().enumerate() {
            if *playing && self.runnable[number] {
                events.push(Event::Poll(number));
            }
        }
        for (number, line) in self.lines.iter().enumerate() {
            if line.waiting.is_some() {
                events.push(Event::Look(number));
            } else if !line.inbox.is_empty() {
                events.push(Event::Deliver(number));
            }
        }
        let only_waits = events.iter().all(|event| matches!(event, Event::Look(_)));
        // Time passes when nothing else can happen, and now and then before that.
        if only_waits || self.rng.u8(..16) == 0 {
            let passed = self.pass_time();
            if only_waits && !passed && events.is_empty() {
                return None;
            }
            if events.is_empty() {
                let first = self.runnable.iter().zip(playing);
                let first = first
                    .enumerate()
                    .find(|(_, (runs, plays))| **runs && **plays);
                return first.map(|(number, _)| Event::Poll(number));
            }
        }
        let index = self.rng.usize(..events.len());
        Some(events[index])
    }

    /// To the next pause or limit that ends.
    fn pass_time(&mut self) -> bool {
        let limits = self.lines.iter().filter_map(|line| line.waiting?.until);
        let next = self.timers.iter().flatten().copied().chain(limits);
        let Some(next) = next.filter(|next| *next > self.elapsed).min() else {
            return false;
        };
        // A little late, as clocks are.
        self.elapsed = next + Duration::from_micros(self.rng.u64(..50));
        for (timer, runnable) in self.timers.iter().zip(&mut self.runnable) {
            *runnable |= timer.is_some_and(|timer| timer <= self.elapsed);
        }
        true
    }

    /// What an administrator, a caller or a pooler does.
    fn interfere(&mut self) {
        match self.rng.u16(..400) {
            0 => {
                let line = self.rng.usize(..self.lines.len().max(1));
                if let Some(line) = self.lines.get(line) {
                    let pid = line.pid;
                    self.met.terminated += u64::from(self.server.is_alive(pid));
                    self.trace(|| format!("session {pid} is ended"));
                    self.server.terminate(pid);
                }
            }
            1..=4 => {
                let waiting: Vec<_> = self
                    .lines
                    .iter()
                    .filter(|line| line.waiting.is_some())
                    .collect();
                if let Some(line) = waiting.get(self.rng.usize(..waiting.len().max(1))) {
                    let pid = line.pid;
                    self.met.cancelled += 1;
                    self.trace(|| format!("session {pid} is cancelled"));
                    self.server.cancel(pid);
                }
            }
            5..=7 => {
                let number = self.rng.usize(..self.drops.len());
                if self.in_call[number] {
                    self.met.dropped += 1;
                    self.drops[number] = true;
                    self.runnable[number] = true;
                }
            }
            8 => self.exchange(),
            9..=12 => {
                if let Some(pid) = self.strays.pop() {
                    self.trace(|| format!("the pooler closes {pid}"));
                    self.server.terminate(pid);
                }
            }
            _ => {}
        }
    }

    /// A pooler gives a line another session, between two transactions.
    fn exchange(&mut self) {
        let number = self.rng.usize(..self.lines.len().max(1));
        let Some(line) = self.lines.get(number) else {
            return;
        };
        let pid = line.pid;
        if line.waiting.is_none()
            && self.server.is_alive(pid)
            && !self.server.is_in_transaction(pid)
        {
            let next = self.server.connect();
            self.trace(|| format!("session {pid} is exchanged for {next}"));
            self.strays.push(pid);
            self.lines[number].pid = next;
            self.lines[number].exchanged = true;
        }
    }

    fn answer(
        &mut self,
        line: usize,
        message: u64,
        reply: Result<Option<advisory_locking::session::Row>, Code>,
    ) {
        let gone = !self.server.is_alive(self.lines[line].pid);
        self.trace(|| format!("line {line}: message {message}: {reply:?}"));
        self.lines[line].answered_by = self.lines[line].pid;
        self.lines[line].answer(message, reply.map_err(|code| (code, gone)));
        let client = self.lines[line].client;
        // Also if nobody waits for it: the client may wait for quiet.
        self.runnable[client] = true;
    }

    fn deliver(&mut self, number: usize) {
        let pid = self.lines[number].pid;
        let Some((message, sent)) = self.lines[number].inbox.pop_front() else {
            return;
        };
        self.trace(|| format!("line {number}: message {message}: {sent:?}"));
        if !self.server.is_alive(pid) {
            return self.answer(number, message, Err("08006"));
        }
        // An end is not a request that could fail; what nobody waits for is sent so often that it goes through.
        let may_fail = !matches!(sent, Message::End)
            && !matches!(&sent, Message::Batch(batch) if matches!(batch.kind(), BatchKind::ReleaseOrEnd { .. }));
        let fault = if may_fail {
            self.rng.u8(..120)
        } else {
            u8::MAX
        };
        let code = self.code();
        if fault == 0 {
            self.met.refusals += 1;
            let code = self.server.fail(pid, code);
            self.after_failure(number, &sent);
            return self.answer(number, message, Err(code));
        }
        let done = execute(&mut self.server, pid, &sent);
        let reply = match (fault, done) {
            (_, Ok(Done::Queued(ticket))) => {
                let limit = match &sent {
                    Message::Batch(batch) => match batch.kind() {
                        BatchKind::Wait { limit_ms, .. } if limit_ms > 0 => {
                            Some(u64::from(limit_ms.unsigned_abs()))
                        }
                        _ => None,
                    },
                    _ => None,
                };
                let Message::Batch(batch) = sent else { return };
                self.lines[number].waiting = Some(Waiting {
                    message,
                    batch,
                    ticket,
                    until: limit.map(|limit| self.elapsed + Duration::from_millis(limit)),
                });
                return;
            }
            (1, Ok(_)) => {
                self.met.done_but_reported += 1;
                Err(self.server.fail(pid, code))
            }
            (2, Ok(_)) => {
                self.met.replies_lost += 1;
                self.server.terminate(pid);
                Err("08006")
            }
            (_, Ok(Done::Row(row))) => Ok(Some(row)),
            (_, Ok(Done::Ran)) => Ok(None),
            (_, Err(code)) => Err(code),
        };
        if reply.is_err() {
            self.after_failure(number, &sent);
        }
        self.answer(number, message, reply);
    }

    /// A client whose outermost `BEGIN` or `COMMIT` has failed makes sure that there is no transaction.
    fn after_failure(&mut self, number: usize, sent: &Message) {
        if matches!(sent, Message::Begin(0) | Message::Commit(0)) {
            let _ = self.server.rollback(self.lines[number].pid);
        }
    }

    fn code(&mut self) -> Code {
        ["40P01", "53200", "55P03", "57014", "42501"][self.rng.usize(..5)]
    }

    /// A wait may have been granted, may have reached its limit or be in a deadlock, or go on.
    fn look(&mut self, number: usize) {
        let Some(Waiting {
            message,
            batch,
            ticket,
            until,
        }) = self.lines[number].waiting
        else {
            return;
        };
        let pid = self.lines[number].pid;
        let late = until.is_some_and(|until| until <= self.elapsed);
        let mut ended = self.server.ended(ticket);
        if ended.is_none() && late {
            self.met.expired += 1;
            self.server.expire(ticket);
            ended = self.server.ended(ticket);
        }
        if ended.is_none() && self.rng.u8(..4) == 0 {
            self.server.check_deadlock(ticket);
            ended = self.server.ended(ticket);
        }
        if ended.is_none() && !self.server.is_alive(pid) {
            ended = Some(Err("57P01"));
        }
        let Some(ended) = ended else { return };
        self.lines[number].waiting = None;
        // The grant and its limit, a cancel, or the search for deadlocks, coincide.
        let coincides = late || self.rng.u8(..16) == 0;
        let reply = match ended {
            Ok(()) if coincides && self.rng.bool() => {
                self.met.granted_but_reported += 1;
                let code = ["55P03", "55P03", "57014", "40P01"][self.rng.usize(..4)];
                Err(self.server.fail(pid, code))
            }
            Ok(()) => self.server.finish_batch(pid, &batch).map(|()| None),
            Err(code) => Err(code),
        };
        self.answer(number, message, reply);
    }
}
