//! The schedule: the next event, and the injected faults.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::client::client;
use crate::coverage::Coverage;
use crate::simulation::{Simulation, State};

/// Limit of a run that does not end.
const STEPS: u64 = 50_000;

/// A possible next event.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client is polled.
    Poll(usize),
    /// The server executes the next message of a link.
    Deliver(usize),
    /// The server checks a wait.
    CheckWait(usize),
}

/// Runs one seed to its end.
pub(crate) fn run_seed(seed: u64, trace_enabled: bool) -> Coverage {
    // The library's poll pauses use this generator.
    fastrand::seed(seed);
    let clients = 2 + (seed % 4) as usize;
    let simulation = Simulation::new(seed, clients, trace_enabled);
    let mut futures: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>> = (0..clients)
        .map(|number| {
            Some(Box::pin(client(simulation.clone(), number)) as Pin<Box<dyn Future<Output = ()>>>)
        })
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < STEPS, "the run does not end");
        let event = simulation
            .state()
            .choose(&futures.iter().map(Option::is_some).collect::<Vec<_>>());
        let Some(event) = event else { break };
        match event {
            Event::Poll(number) => {
                simulation.state().runnable[number] = false;
                if let Some(future) = &mut futures[number]
                    && future.as_mut().poll(&mut context).is_ready()
                {
                    futures[number] = None;
                }
            }
            Event::Deliver(link) => simulation.state().deliver(link),
            Event::CheckWait(link) => simulation.state().check_wait(link),
        }
        simulation.state().check();
    }
    let mut state = simulation.state();
    assert!(futures.iter().all(Option::is_none), "a client hangs");
    for pid in std::mem::take(&mut state.detached_sessions) {
        state.server.terminate(pid);
    }
    for key in 0..3 {
        let left = state.server.held(advisory_locking::RawLockKey::Single(key));
        assert!(left.is_empty(), "left at the end: {left:?}");
    }
    state.coverage.steps = steps;
    state.coverage.clone()
}

impl State {
    /// Chooses the next event; `None` at the end of the run.
    fn choose(&mut self, running: &[bool]) -> Option<Event> {
        if running.contains(&true) {
            self.inject_fault();
        }
        let mut events = Vec::new();
        for (number, running) in running.iter().enumerate() {
            if *running && self.runnable[number] {
                events.push(Event::Poll(number));
            }
        }
        for (number, link) in self.links.iter().enumerate() {
            if link.waiting.is_some() {
                events.push(Event::CheckWait(number));
            } else if !link.inbox.is_empty() {
                events.push(Event::Deliver(number));
            }
        }
        let only_waits = events
            .iter()
            .all(|event| matches!(event, Event::CheckWait(_)));
        // Time passes when no other event is possible, and at random.
        if only_waits || self.rng.u8(..16) == 0 {
            let passed = self.pass_time();
            if only_waits && !passed && events.is_empty() {
                return None;
            }
            if events.is_empty() {
                let first = self.runnable.iter().zip(running);
                let first = first
                    .enumerate()
                    .find(|(_, (runs, is_running))| **runs && **is_running);
                return first.map(|(number, _)| Event::Poll(number));
            }
        }
        let index = self.rng.usize(..events.len());
        Some(events[index])
    }

    /// Advances the time to the end of the next pause or limit.
    fn pass_time(&mut self) -> bool {
        let limits = self.links.iter().filter_map(|link| link.waiting?.until);
        let next = self.timers.iter().flatten().copied().chain(limits);
        let Some(next) = next.filter(|next| *next > self.elapsed).min() else {
            return false;
        };
        // Timers fire late by a random delay.
        self.elapsed = next + Duration::from_micros(self.rng.u64(..50));
        for (timer, runnable) in self.timers.iter().zip(&mut self.runnable) {
            *runnable |= timer.is_some_and(|timer| timer <= self.elapsed);
        }
        true
    }

    /// Injects a fault at random: terminates or cancels a session, drops a future, or swaps a
    /// session.
    fn inject_fault(&mut self) {
        match self.rng.u16(..400) {
            0 => {
                let link = self.rng.usize(..self.links.len().max(1));
                if let Some(link) = self.links.get(link) {
                    let pid = link.pid;
                    self.coverage.terminated += u64::from(self.server.is_alive(pid));
                    self.trace(|| format!("session {pid} is ended"));
                    self.server.terminate(pid);
                }
            }
            1..=4 => {
                let waiting: Vec<_> = self
                    .links
                    .iter()
                    .filter(|link| link.waiting.is_some())
                    .collect();
                if let Some(link) = waiting.get(self.rng.usize(..waiting.len().max(1))) {
                    let pid = link.pid;
                    self.coverage.cancelled += 1;
                    self.trace(|| format!("session {pid} is cancelled"));
                    self.server.cancel(pid);
                }
            }
            5..=7 => {
                let number = self.rng.usize(..self.drops.len());
                if self.in_call[number] {
                    self.coverage.dropped += 1;
                    self.drops[number] = true;
                    self.runnable[number] = true;
                }
            }
            8 => self.swap_session(),
            9..=12 => {
                if let Some(pid) = self.detached_sessions.pop() {
                    self.trace(|| format!("the pooler closes {pid}"));
                    self.server.terminate(pid);
                }
            }
            _ => {}
        }
    }

    /// Swaps the session of a link between two transactions, as a pooler does.
    fn swap_session(&mut self) {
        let number = self.rng.usize(..self.links.len().max(1));
        let Some(link) = self.links.get(number) else {
            return;
        };
        let pid = link.pid;
        if link.waiting.is_none()
            && self.server.is_alive(pid)
            && !self.server.is_in_transaction(pid)
        {
            let next = self.server.connect();
            self.trace(|| format!("session {pid} is swapped for {next}"));
            self.detached_sessions.push(pid);
            self.links[number].pid = next;
            self.links[number].swapped = true;
        }
    }
}
