//! Warnings about locks that are held for long: [`OverdueWatch`].
//!
//! # Implementation details
//!
//! A tree of holds, in the order of their warning times, is behind a mutex. One thread of the
//! process sleeps until the first of them. The first hold with a warning time starts the thread. A
//! hold wakes the thread only if its time is earlier than all others. Consequence for users: the
//! warning appears while the lock is held, also if a blocking body hangs, and a hold without a
//! warning time costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::notice::Notice;
use super::{LockEvent, Subject};

static WATCHER: Mutex<Watcher> = Mutex::new(Watcher {
    holds: BTreeMap::new(),
    last_number: 0,
    is_running: false,
});

/// Wakes the thread for an earlier warning time.
static EARLIER: Condvar = Condvar::new();

struct Watcher {
    holds: BTreeMap<WatchId, WatchedHold>,
    last_number: u64,
    is_running: bool,
}

/// Warning time of a hold, and a number that makes it unique.
type WatchId = (Instant, u64);

struct WatchedHold {
    notice: Arc<Notice>,
    since: Instant,
}

/// Hold that a warning follows unless this value is dropped before.
///
/// Boxed, because few holds have one, and each grant is moved with it.
#[derive(Debug)]
pub(super) struct OverdueWatch(Box<(WatchId, Arc<Notice>)>);

impl OverdueWatch {
    /// Starts to watch a hold. Returns `None` if no warning will follow: the time is out of reach,
    /// or no thread could be started.
    pub(super) fn new(subject: &Subject, after: Duration) -> Option<Self> {
        let since = Instant::now();
        let at = since.checked_add(after)?;
        let mut watcher = watcher();
        if !watcher.is_running {
            let thread = thread::Builder::new().name("advisory-locking-watch".to_owned());
            thread.spawn(watch).ok()?;
            watcher.is_running = true;
        }
        watcher.last_number = watcher.last_number.wrapping_add(1);
        let id = (at, watcher.last_number);
        let is_first = watcher.holds.keys().next().is_none_or(|first| id < *first);
        let notice = Arc::new(Notice::new(subject));
        let hold = WatchedHold {
            notice: Arc::clone(&notice),
            since,
        };
        watcher.holds.insert(id, hold);
        // Unlocked first: the thread locks the mutex when it wakes.
        drop(watcher);
        if is_first {
            EARLIER.notify_one();
        }
        Some(Self(Box::new((id, notice))))
    }
}

impl Drop for OverdueWatch {
    fn drop(&mut self) {
        let (id, notice) = &*self.0;
        watcher().holds.remove(id);
        // Waits for a warning that the thread sends right now.
        notice.close();
    }
}

fn watcher() -> MutexGuard<'static, Watcher> {
    // Each change is one call of the tree, so a panic leaves it whole.
    WATCHER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the warnings, until the process ends.
fn watch() {
    let mut guard = watcher();
    loop {
        let first = guard.holds.keys().next().copied();
        guard = match first {
            None => EARLIER.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(id) => match id.0.checked_duration_since(Instant::now()) {
                Some(pause) if !pause.is_zero() => {
                    let woken = EARLIER.wait_timeout(guard, pause);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                _ => {
                    let hold = guard.holds.remove(&id);
                    // Outside the mutex, because the subscriber may acquire or release a lock.
                    drop(guard);
                    if let Some(hold) = hold {
                        let held = hold.since.elapsed();
                        hold.notice.send(LockEvent::Overdue { held });
                    }
                    watcher()
                }
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::LockKey;
    use crate::observer::ObservedLock;
    use crate::options::{LockMode, LockScope};

    /// Otherwise the tree would grow with each hold until its warning time.
    #[test]
    fn ended_hold_is_no_longer_watched() {
        let subject = Subject {
            lock: ObservedLock {
                key: LockKey::from(1),
                label: "",
                scope: LockScope::Session,
                mode: LockMode::Exclusive,
                strategy: None,
                backend: None,
                pid: None,
                request: 0,
            },
            observer: None,
        };
        let watch = OverdueWatch::new(&subject, Duration::from_secs(3_600)).unwrap();
        let id = watch.0.0;
        assert!(watcher().holds.contains_key(&id));
        drop(watch);
        assert!(!watcher().holds.contains_key(&id));
    }
}
