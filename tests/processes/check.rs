//! Checks what was recorded against the model at the top of `main.rs`.

mod itself;

use std::collections::{BTreeMap, HashSet};

pub(crate) use itself::checks_itself;

use crate::history::{Event, Mode, Moment, Outcome};

/// NemesisAction the nemesis did, and when it began and ended to do it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act {
    pub(crate) what: NemesisAction,
    pub(crate) from: Moment,
    /// When it was seen done.
    pub(crate) until: Moment,
    /// The process, if it was done to a session of its locker.
    pub(crate) locker: Option<usize>,
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

/// A lock that was granted, and what was done under it.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) process: usize,
    pub(crate) key: usize,
    pub(crate) mode: Mode,
    pub(crate) pid: i32,
    /// Of a locker's lock: which of its sessions had it.
    pub(crate) generation: Option<u64>,
    /// Whether the lock was seen on that session. A locker hands a lock on without asking the server, so it may be gone by then.
    pub(crate) seen: bool,
    pub(crate) from: Moment,
    pub(crate) until: Moment,
    pub(crate) writes: Option<u64>,
    pub(crate) wrote: bool,
    pub(crate) filed: Option<u64>,
    pub(crate) stale: bool,
    pub(crate) differed: bool,
    /// How and when the call ended; not, if its process was killed.
    pub(crate) ended: Option<(Outcome, Moment)>,
}

impl Hold {
    fn is_ok(&self) -> bool {
        matches!(self.ended, Some((Outcome::Ok, _)))
    }

    /// Whether what the holder wrote to the database is acknowledged: at once, or with the commit.
    fn acknowledged(&self) -> Option<u64> {
        self.writes.filter(|_| self.wrote || self.is_ok())
    }

    /// Whether what was done to a session was, or may have been, done to that of the lock.
    fn is_on(&self, pid: i32, act: &Act) -> bool {
        let unknown = self.pid == 0 && self.generation.is_some();
        pid == self.pid || (unknown && act.locker == Some(self.process))
    }

    fn is_ended_by(&self, act: &Act) -> bool {
        let hit = match act.what {
            NemesisAction::Terminate { pid } => self.is_on(pid, act),
            NemesisAction::Kill { process } => process == self.process,
            NemesisAction::Restart { .. } => true,
            NemesisAction::Cancel { .. } | NemesisAction::Stop => false,
        };
        hit && act.until >= self.from && act.from <= self.until
    }

    /// Whether it explains that the call failed.
    fn is_failed_by(&self, act: &Act, ended: Moment) -> bool {
        let hit = match act.what {
            NemesisAction::Terminate { pid } | NemesisAction::Cancel { pid } => {
                self.is_on(pid, act)
            }
            NemesisAction::Restart { .. } => true,
            NemesisAction::Kill { .. } | NemesisAction::Stop => false,
        };
        // NemesisAction was handed on may have been lost before.
        hit && (act.until >= self.from || self.generation.is_some()) && act.from <= ended
    }
}

/// NemesisAction was recorded, call by call.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) holds: Vec<Hold>,
    /// How the calls ended, with and without a lock.
    pub(crate) outcomes: BTreeMap<&'static str, usize>,
}

impl History {
    /// Adds what a process has recorded.
    pub(crate) fn add(&mut self, process: usize, events: Vec<(u64, Event)>) {
        let mut holds: BTreeMap<u64, Hold> = BTreeMap::new();
        for (call, event) in events {
            if let Event::Ended { outcome, .. } = event {
                let granted = holds.contains_key(&call);
                *self.outcomes.entry(name(outcome, granted)).or_default() += 1;
            }
            if let Event::Granted { key, mode, pid, at } = event {
                let hold = Hold {
                    process,
                    key,
                    mode,
                    pid,
                    generation: None,
                    seen: true,
                    from: at,
                    until: Moment::MAX,
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
                Event::OfLocker { generation } => hold.generation = Some(generation),
                Event::Writes { number } => hold.writes = Some(number),
                Event::Wrote { .. } => hold.wrote = true,
                Event::Filed { number } => hold.filed = Some(number),
                Event::Stale => hold.stale = true,
                Event::Differed => hold.differed = true,
                Event::Until { at } => hold.until = hold.until.min(at),
                Event::Ended { outcome, at } => hold.ended = Some((outcome, at)),
            }
        }
        let mut holds: Vec<Hold> = holds.into_values().collect();
        find_sessions(&mut holds);
        self.holds.extend(holds);
    }
}

/// Tells the sessions of a process's locker apart. The work is done on other connections, on which it was asked which session of the process has the lock. If the
/// release succeeded, that was the one of this generation. If not, the lock may have been lost by then, and what was found be the next session's, or none.
fn find_sessions(holds: &mut [Hold]) {
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
        (Outcome::Failed | Outcome::NotHad, true) => "failed while held",
        (Outcome::TimedOut, _) => "timed out",
        (Outcome::Failed | Outcome::NotHad, false) => "not had for a failure",
        (Outcome::Dropped, true) => "dropped while held",
        (Outcome::Dropped, false) => "dropped while waiting",
    }
}

/// The counters of one key when all is over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Final {
    pub(crate) number: u64,
    pub(crate) filed: u64,
    /// Of the lockers' clients.
    pub(crate) fenced: u64,
}

/// NemesisAction contradicts the model: nothing, if the locks are right.
pub(crate) fn contradictions(history: &History, acts: &[Act], finals: &[Final]) -> Vec<String> {
    let mut found = Vec::new();
    for (key, last) in finals.iter().enumerate() {
        let holds: Vec<&Hold> = history
            .holds
            .iter()
            .filter(|hold| hold.key == key)
            .collect();
        overlaps(&holds, acts, &mut found);
        let (fenced, plain): (Vec<&Hold>, _) = holds
            .into_iter()
            .partition(|hold| hold.generation.is_some());
        counted(&plain, *last, &mut found);
        let last = Final {
            number: last.fenced,
            ..Final::default()
        };
        counted(&fenced, last, &mut found);
    }
    for hold in &history.holds {
        alone(hold, acts, &mut found);
    }
    found
}

/// The end of the certain interval of a hold.
fn certain_until(hold: &Hold, acts: &[Act]) -> Moment {
    if !hold.seen {
        return hold.from;
    }
    let ends = acts.iter().filter(|act| hold.is_ended_by(act));
    ends.map(|act| act.from).fold(hold.until, Moment::min)
}

fn overlaps(holds: &[&Hold], acts: &[Act], found: &mut Vec<String>) {
    let mut certain: Vec<(Moment, Moment, &Hold)> = holds
        .iter()
        .map(|hold| (hold.from, certain_until(hold, acts), *hold))
        .filter(|(from, until, _)| from < until)
        .collect();
    certain.sort_by_key(|(from, until, _)| (*from, *until));
    // Of those that began before: the one that ends last, and the one among the exclusive ones.
    let mut last: [Option<(Moment, &Hold)>; 2] = [None, None];
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
        let later = |last: Option<(Moment, _)>| last.is_none_or(|(end, _)| end < until);
        if later(last[0]) {
            last[0] = Some((until, hold));
        }
        if hold.mode == Mode::Exclusive && later(last[1]) {
            last[1] = Some((until, hold));
        }
    }
}

fn counted(holds: &[&Hold], last: Final, found: &mut Vec<String>) {
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

/// NemesisAction a hold says by itself.
fn alone(hold: &Hold, acts: &[Act], found: &mut Vec<String>) {
    let lived = certain_until(hold, acts) == hold.until;
    if hold.differed && lived {
        found.push(format!("two readings differ under a shared lock: {hold:?}"));
    }
    if hold.stale && lived {
        found.push(format!(
            "the file has seen a later token under a lock that was held: {hold:?}"
        ));
    }
    if hold.is_ok() && !hold.seen {
        found.push(format!(
            "not seen on its session, and not reported lost: {hold:?}"
        ));
    }
    match hold.ended {
        Some((Outcome::Lost | Outcome::Failed | Outcome::NotHad, at)) => {
            if !acts.iter().any(|act| hold.is_failed_by(act, at)) {
                found.push(format!("failed without a cause: {hold:?}"));
            }
        }
        Some((Outcome::Ok, _)) => {
            let dead = |act: &&Act| {
                hold.is_ended_by(act) && act.from >= hold.from && act.until < hold.until
            };
            if let Some(act) = acts.iter().find(dead) {
                found.push(format!("not reported lost after {act:?}: {hold:?}"));
            }
        }
        Some((Outcome::Dropped | Outcome::TimedOut, _)) => {}
        None => {
            let killed = |act: &Act| {
                act.what
                    == NemesisAction::Kill {
                        process: hold.process,
                    }
            };
            if !acts.iter().any(killed) {
                found.push(format!(
                    "a call did not end, and nobody killed its process: {hold:?}"
                ));
            }
        }
    }
}
