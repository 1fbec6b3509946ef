//! Checks the recorded history against the model at the top of `main.rs`.

mod checker_tests;

use std::collections::{BTreeMap, HashSet};

pub(crate) use checker_tests::test_checker;

use crate::history::{Event, Mode, MonotonicNanos, Outcome};

/// An action of the nemesis, with the times of its begin and end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NemesisEvent {
    pub(crate) action: NemesisAction,
    pub(crate) from: MonotonicNanos,
    /// The time at which its effect was seen.
    pub(crate) until: MonotonicNanos,
    /// The process whose lock manager opened the affected session.
    pub(crate) lock_manager: Option<usize>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NemesisAction {
    /// A session was ended, and is gone.
    Terminate { pid: i32 },
    /// A session's statement was cancelled, if it ran one.
    Cancel { pid: i32 },
    /// A process was killed.
    Kill { process: usize },
    /// A process was stopped for a while.
    Stop,
    /// The server was restarted.
    Restart { immediate: bool },
}

/// The time during which a call held its lock, and its writes.
#[derive(Clone, Debug)]
pub(crate) struct HoldInterval {
    pub(crate) process: usize,
    pub(crate) key: usize,
    pub(crate) mode: Mode,
    pub(crate) pid: i32,
    /// True if the lock is transaction-level.
    pub(crate) transaction_level: bool,
    /// The generation of the lock manager's session that held the lock.
    pub(crate) generation: Option<u64>,
    /// True if another connection saw the lock on that session.
    ///
    /// A lock manager hands a lock off without the server, so the lock may have been lost before.
    pub(crate) seen: bool,
    pub(crate) from: MonotonicNanos,
    pub(crate) until: MonotonicNanos,
    pub(crate) writes: Option<u64>,
    pub(crate) wrote: bool,
    pub(crate) filed: Option<u64>,
    pub(crate) stale: bool,
    pub(crate) differed: bool,
    /// Outcome and time of the end. `None` if the process was killed.
    pub(crate) ended: Option<(Outcome, MonotonicNanos)>,
}

impl HoldInterval {
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.ended, Some((Outcome::Ok, _)))
    }

    /// The number in the database whose write was acknowledged, at once or by the commit.
    fn acknowledged(&self) -> Option<u64> {
        self.writes.filter(|_| self.wrote || self.is_ok())
    }

    /// Returns true if the session `pid` is, or may be, the session of this lock.
    fn is_on(&self, pid: i32, event: &NemesisEvent) -> bool {
        let unknown = self.pid == 0 && self.generation.is_some();
        pid == self.pid || (unknown && event.lock_manager == Some(self.process))
    }

    fn is_ended_by(&self, event: &NemesisEvent) -> bool {
        self.is_ended_until(self.until, event)
    }

    /// Returns true if `event` may have ended the lock at `until` or before.
    fn is_ended_until(&self, until: MonotonicNanos, event: &NemesisEvent) -> bool {
        let hit = match event.action {
            NemesisAction::Terminate { pid } => self.is_on(pid, event),
            NemesisAction::Kill { process } => process == self.process,
            NemesisAction::Restart { .. } => true,
            // The error aborts the transaction, which releases the lock. A lock manager ends a
            // session if its compensation fails.
            NemesisAction::Cancel { pid } => {
                let may_end = self.transaction_level || self.generation.is_some();
                may_end && !self.is_ok() && self.is_on(pid, event)
            }
            NemesisAction::Stop => false,
        };
        hit && event.until >= self.from && event.from <= until
    }

    /// Returns true if `event` explains the failure of the call.
    fn is_failed_by(&self, event: &NemesisEvent, ended: MonotonicNanos) -> bool {
        let hit = match event.action {
            NemesisAction::Terminate { pid } | NemesisAction::Cancel { pid } => {
                self.is_on(pid, event)
            }
            NemesisAction::Restart { .. } => true,
            NemesisAction::Kill { .. } | NemesisAction::Stop => false,
        };
        // A lock that was handed off may have been lost before.
        hit && (event.until >= self.from || self.generation.is_some()) && event.from <= ended
    }
}

/// The records of all processes, call by call.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) holds: Vec<HoldInterval>,
    /// Number of calls by outcome, with and without a lock.
    pub(crate) outcomes: BTreeMap<&'static str, usize>,
}

impl History {
    /// Adds the record of a process.
    pub(crate) fn add(&mut self, process: usize, events: Vec<(u64, Event)>) {
        let mut holds: BTreeMap<u64, HoldInterval> = BTreeMap::new();
        for (call, event) in events {
            if let Event::Ended { outcome, .. } = event {
                let granted = holds.contains_key(&call);
                *self.outcomes.entry(name(outcome, granted)).or_default() += 1;
            }
            if let Event::Granted { key, mode, pid, at } = event {
                let hold = HoldInterval {
                    process,
                    key,
                    mode,
                    pid,
                    transaction_level: false,
                    generation: None,
                    seen: true,
                    from: at,
                    until: MonotonicNanos::MAX,
                    writes: None,
                    wrote: false,
                    filed: None,
                    stale: false,
                    differed: false,
                    ended: None,
                };
                assert!(holds.insert(call, hold).is_none(), "a call is granted once");
                continue;
            }
            let Some(hold) = holds.get_mut(&call) else {
                continue;
            };
            match event {
                Event::Granted { .. } => {}
                Event::TransactionLevel => hold.transaction_level = true,
                Event::HeldByLockManager { generation } => hold.generation = Some(generation),
                Event::Writes { number } => hold.writes = Some(number),
                Event::Wrote { .. } => hold.wrote = true,
                Event::Filed { number } => hold.filed = Some(number),
                Event::Stale => hold.stale = true,
                Event::Differed => hold.differed = true,
                Event::Until { at } => hold.until = hold.until.min(at),
                Event::Ended { outcome, at } => hold.ended = Some((outcome, at)),
            }
        }
        let mut holds: Vec<HoldInterval> = holds.into_values().collect();
        find_sessions(&mut holds);
        self.holds.extend(holds);
    }
}

/// Maps the generations of a lock manager's sessions to process ids.
///
/// Another connection looked up the session that held the lock. If the release succeeded, it was
/// the session of this generation. Otherwise the lock may have been lost before the look-up, which
/// then found the next session or none.
fn find_sessions(holds: &mut [HoldInterval]) {
    let sessions: BTreeMap<u64, i32> = holds
        .iter()
        .filter(|hold| hold.is_ok())
        .filter_map(|hold| Some((hold.generation?, hold.pid)))
        .collect();
    for hold in holds {
        if let Some(generation) = hold.generation {
            let session = sessions.get(&generation).copied().unwrap_or(0);
            hold.seen = session != 0 && hold.pid == session;
            hold.pid = session;
        }
    }
}

fn name(outcome: Outcome, granted: bool) -> &'static str {
    match (outcome, granted) {
        (Outcome::Ok, _) => "held and released",
        (Outcome::Lost, _) => "reported lost",
        (Outcome::Failed | Outcome::NotAcquired, true) => "failed while held",
        (Outcome::TimedOut, _) => "timed out",
        (Outcome::Failed | Outcome::NotAcquired, false) => "not acquired because of a failure",
        (Outcome::Dropped, true) => "dropped while held",
        (Outcome::Dropped, false) => "dropped while waiting",
    }
}

/// The counters of one key after all processes have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FinalState {
    pub(crate) number: u64,
    pub(crate) filed: u64,
    /// The counter of the lock managers' clients.
    pub(crate) fenced: u64,
}

/// Returns every contradiction between the history and the model.
pub(crate) fn contradictions(
    history: &History,
    events: &[NemesisEvent],
    finals: &[FinalState],
) -> Vec<String> {
    let mut found = Vec::new();
    for (key, last) in finals.iter().enumerate() {
        let holds: Vec<&HoldInterval> = history
            .holds
            .iter()
            .filter(|hold| hold.key == key)
            .collect();
        check_overlaps(&holds, events, &mut found);
        let (fenced, plain): (Vec<&HoldInterval>, _) = holds
            .into_iter()
            .partition(|hold| hold.generation.is_some());
        check_counters(&plain, *last, &mut found);
        let last = FinalState {
            number: last.fenced,
            ..FinalState::default()
        };
        check_counters(&fenced, last, &mut found);
    }
    for hold in &history.holds {
        check_interval(hold, events, &mut found);
    }
    found
}

/// Returns the end of the certain interval.
fn certain_until(hold: &HoldInterval, events: &[NemesisEvent]) -> MonotonicNanos {
    if !hold.seen {
        return hold.from;
    }
    let ends = events.iter().filter(|event| hold.is_ended_by(event));
    ends.map(|event| event.from)
        .fold(hold.until, MonotonicNanos::min)
}

fn check_overlaps(holds: &[&HoldInterval], events: &[NemesisEvent], found: &mut Vec<String>) {
    let mut certain: Vec<(MonotonicNanos, MonotonicNanos, &HoldInterval)> = holds
        .iter()
        .map(|hold| (hold.from, certain_until(hold, events), *hold))
        .filter(|(from, until, _)| from < until)
        .collect();
    certain.sort_by_key(|(from, until, _)| (*from, *until));
    // Among the earlier intervals: the one that ends last, and the exclusive one that ends last.
    let mut last: [Option<(MonotonicNanos, &HoldInterval)>; 2] = [None, None];
    for (from, until, hold) in certain {
        let [any, exclusive] = last;
        let earlier = if hold.mode == Mode::Exclusive {
            any
        } else {
            exclusive
        };
        if let Some((end, other)) = earlier.filter(|(end, _)| *end > from) {
            found.push(format!(
                "overlap by {} ns: {other:?} and {hold:?}",
                end.min(until) - from
            ));
        }
        let later = |last: Option<(MonotonicNanos, _)>| last.is_none_or(|(end, _)| end < until);
        if later(last[0]) {
            last[0] = Some((until, hold));
        }
        if hold.mode == Mode::Exclusive && later(last[1]) {
            last[1] = Some((until, hold));
        }
    }
}

fn check_counters(holds: &[&HoldInterval], last: FinalState, found: &mut Vec<String>) {
    let mut numbers = HashSet::new();
    let mut doubtful = 0;
    for hold in holds {
        match hold.acknowledged() {
            Some(number) if !numbers.insert(number) => {
                found.push(format!(
                    "lost update of the database: {number} was written twice, by {hold:?} too"
                ));
            }
            None if hold.writes.is_some() => doubtful += 1,
            _ => {}
        }
    }
    let sure = u64::try_from(numbers.len()).unwrap();
    if last.number < sure || last.number > sure + doubtful {
        let number = last.number;
        found.push(format!(
            "the database counts {number}, of {sure} acknowledged and {doubtful} in doubt"
        ));
    }
    let mut filed = HashSet::new();
    for hold in holds.iter().filter(|hold| hold.is_ok()) {
        if let Some(number) = hold.filed.filter(|number| !filed.insert(*number)) {
            found.push(format!(
                "lost update of the file: {number} was written twice, by {hold:?} too"
            ));
        }
    }
    if filed.iter().any(|number| *number > last.filed) {
        found.push(format!(
            "the file counts {}, fewer than were acknowledged",
            last.filed
        ));
    }
}

/// Checks one interval by itself.
fn check_interval(hold: &HoldInterval, events: &[NemesisEvent], found: &mut Vec<String>) {
    // A future that is dropped may read and write after its certain interval.
    let ended = hold.ended.map_or(MonotonicNanos::MAX, |(_, at)| at);
    let lived = hold.seen && !events.iter().any(|event| hold.is_ended_until(ended, event));
    if hold.differed && lived {
        found.push(format!("two readings differ under a shared lock: {hold:?}"));
    }
    if hold.stale && lived {
        found.push(format!(
            "the file has a later token than a lock that was held: {hold:?}"
        ));
    }
    if hold.is_ok() && !hold.seen {
        found.push(format!(
            "not seen on its session, and not reported lost: {hold:?}"
        ));
    }
    match hold.ended {
        Some((Outcome::Lost | Outcome::Failed | Outcome::NotAcquired | Outcome::TimedOut, at)) => {
            if !events.iter().any(|event| hold.is_failed_by(event, at)) {
                found.push(format!("failed without a cause: {hold:?}"));
            }
        }
        Some((Outcome::Ok, _)) => {
            let dead = |event: &&NemesisEvent| {
                hold.is_ended_by(event) && event.from >= hold.from && event.until < hold.until
            };
            if let Some(event) = events.iter().find(dead) {
                found.push(format!("not reported lost after {event:?}: {hold:?}"));
            }
        }
        Some((Outcome::Dropped, _)) => {}
        None => {
            let killed = |event: &NemesisEvent| {
                event.action
                    == NemesisAction::Kill {
                        process: hold.process,
                    }
            };
            if !events.iter().any(killed) {
                found.push(format!(
                    "a call did not end, and its process was not killed: {hold:?}"
                ));
            }
        }
    }
}
