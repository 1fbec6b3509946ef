//! Who goes next, and what goes wrong.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::client::client;
use crate::met::Met;
use crate::world::{State, World};

/// More than any play takes.
const STEPS: u64 = 50_000;

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
        let left = state.server.held(advisory_locking::RawLockKey::Single(key));
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
}
