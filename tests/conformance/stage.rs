//! What a case is played on: [`Stage`], and the [`Harness`] of an adapter behind it.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use advisory_locking::{KeyNamespace, LockKey, LockMode, RawLockKey};

use crate::actor::{Actor, Command, Mail, OUTER_LIMIT, Outcome};

/// A lock that the observer sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    pub(crate) pid: i32,
    pub(crate) mode: LockMode,
    pub(crate) granted: bool,
}

/// One adapter, and somebody who watches its database.
pub(crate) trait Harness {
    /// What a new actor's thread runs: opens a connection and serves the commands on it.
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send>;

    /// Who holds the key or waits for it; always nobody where there are no locks.
    fn holders(&self, key: &LockKey) -> Vec<Held>;

    /// Whether the backend has locks.
    fn excludes(&self) -> bool;

    /// Ends a session from outside.
    fn terminate(&self, pid: i32);

    /// Cancels a session's statement from outside.
    fn cancel(&self, pid: i32);

    /// Whether the client knows how deep in savepoints it is.
    fn counts_savepoints(&self) -> bool {
        true
    }

    /// Whether the client sees a transaction that was begun by plain text.
    fn sees_raw_transactions(&self) -> bool {
        false
    }

    /// Whether a connection outlives a panic in a transaction of ours.
    fn survives_panics(&self) -> bool {
        true
    }
}

struct Thread {
    commands: Sender<Command>,
    ended: Receiver<()>,
    handle: JoinHandle<()>,
}

/// The actors of one case, its keys, and the observer.
pub(crate) struct Stage {
    harness: Box<dyn Harness>,
    threads: RefCell<Vec<Thread>>,
    keys: RefCell<Vec<LockKey>>,
    namespace: KeyNamespace,
    pairs: Cell<i32>,
}

static STAGES: AtomicU64 = AtomicU64::new(0);

impl Stage {
    pub(crate) fn new(harness: Box<dyn Harness>) -> Self {
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        Self {
            harness,
            threads: RefCell::default(),
            keys: RefCell::default(),
            namespace: KeyNamespace::new("conformance")
                .within(std::process::id())
                .within(number),
            pairs: Cell::new(0),
        }
    }

    /// Plays a case, and makes sure that it left nothing behind.
    pub(crate) fn play(harness: Box<dyn Harness>, case: impl FnOnce(&Self)) {
        let stage = Self::new(harness);
        case(&stage);
        stage.assert_clean();
    }

    pub(crate) fn actor(&self) -> Actor {
        self.enter(self.harness.actor())
    }

    /// An actor of another harness on the same database.
    pub(crate) fn enter(&self, run: Box<dyn FnOnce(&Mail) + Send>) -> Actor {
        let (commands, inbox) = mpsc::channel();
        let (outbox, outcomes) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let handle = thread::spawn(move || {
            // Dropped when the thread ends, also by a panic.
            let _end: Sender<()> = end;
            let mail = Mail {
                commands: std::sync::Mutex::new(inbox),
                outcomes: outbox,
            };
            run(&mail);
        });
        self.threads.borrow_mut().push(Thread {
            commands: commands.clone(),
            ended,
            handle,
        });
        Actor { commands, outcomes }
    }

    pub(crate) fn actors<const N: usize>(&self) -> [Actor; N] {
        std::array::from_fn(|_| self.actor())
    }

    /// A key that no other test uses.
    pub(crate) fn key(&self, name: &str) -> LockKey {
        self.watch(self.namespace.key(name))
    }

    /// A pair that no other test uses, and another one with the same first number.
    pub(crate) fn pairs(&self) -> (LockKey, LockKey) {
        let first = match self.namespace.key("pair").raw() {
            RawLockKey::Single(number) => (number >> 33) as i32,
            RawLockKey::Pair(first, _) => first,
        };
        let second = self.pairs.get();
        self.pairs.set(second + 2);
        (
            self.watch(LockKey::from((first, second))),
            self.watch(LockKey::from((first, second + 1))),
        )
    }

    /// Watches a key of the case's choice.
    pub(crate) fn watch(&self, key: impl Into<LockKey>) -> LockKey {
        let key = key.into();
        self.keys.borrow_mut().push(key.clone());
        key
    }

    pub(crate) fn excludes(&self) -> bool {
        self.harness.excludes()
    }

    pub(crate) fn counts_savepoints(&self) -> bool {
        self.harness.counts_savepoints()
    }

    pub(crate) fn sees_raw_transactions(&self) -> bool {
        self.harness.sees_raw_transactions()
    }

    /// What a case expects of one who is kept out; a no-op lets it in.
    pub(crate) fn kept_out(&self, outcome: Outcome) -> Outcome {
        if self.excludes() {
            outcome
        } else {
            Outcome::Granted
        }
    }

    pub(crate) fn holders(&self, key: &LockKey) -> Vec<Held> {
        self.harness.holders(key)
    }

    /// Asserts who holds a key, where there are locks. Nobody waits.
    #[track_caller]
    pub(crate) fn assert_held(&self, key: &LockKey, modes: &[LockMode]) {
        let held: Vec<_> = self
            .holders(key)
            .iter()
            .map(|held| (held.mode, held.granted))
            .collect();
        let expected = if self.excludes() { modes } else { &[] };
        let expected: Vec<_> = expected.iter().map(|mode| (*mode, true)).collect();
        assert_eq!(held, expected, "who holds {key}");
    }

    #[track_caller]
    pub(crate) fn assert_free(&self, key: &LockKey) {
        self.assert_held(key, &[]);
    }

    /// Asserts that a key is free, at once or after what an async client has queued.
    #[track_caller]
    pub(crate) fn assert_soon_free(&self, key: &LockKey) {
        until(OUTER_LIMIT, || self.holders(key).is_empty().then_some(()))
            .unwrap_or_else(|| panic!("who holds {key}: {:?}", self.holders(key)));
    }

    /// Whether a connection outlives a panic in a transaction of ours; an async one cannot wait for the rollback.
    pub(crate) fn survives_panics(&self) -> bool {
        self.harness.survives_panics()
    }

    /// Blocks until as many wait for the key.
    #[track_caller]
    pub(crate) fn until_queued(&self, key: &LockKey, waiters: usize) {
        until(OUTER_LIMIT, || {
            let queued = self
                .holders(key)
                .iter()
                .filter(|held| !held.granted)
                .count();
            (queued == waiters).then_some(())
        })
        .unwrap_or_else(|| panic!("{waiters} sessions wait for {key}: {:?}", self.holders(key)));
    }

    pub(crate) fn terminate(&self, actor: &Actor) {
        self.harness.terminate(pid(actor));
    }

    pub(crate) fn terminate_pid(&self, pid: i32) {
        self.harness.terminate(pid);
    }

    pub(crate) fn cancel_pid(&self, pid: i32) {
        self.harness.cancel(pid);
    }

    /// Nothing is held or waited for after a case. What its actors have left behind would stay as long as they do.
    fn assert_clean(&self) {
        for key in self.keys.borrow().iter() {
            let clean = until(OUTER_LIMIT, || self.holders(key).is_empty().then_some(()));
            let left = self.holders(key);
            assert!(
                clean.is_some(),
                "still held or waited for after the case: {key}: {left:?}"
            );
        }
    }
}

/// The server's process of an actor's session.
pub(crate) fn pid(actor: &Actor) -> i32 {
    i32::try_from(actor.number(crate::actor::Raw::Pid)).expect("a process id")
}

/// Asks until there is an answer or the limit has passed.
pub(crate) fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || began.elapsed() > limit {
            return answer;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Stage {
    /// Ends every actor: first all are told, so that one who waits for another's lock gets it.
    fn drop(&mut self) {
        let threads = std::mem::take(self.threads.get_mut());
        for thread in &threads {
            // It may have ended by a panic.
            let _ = thread.commands.send(Command::Quit);
        }
        let mut failed = Vec::new();
        for thread in threads {
            match thread.ended.recv_timeout(OUTER_LIMIT) {
                Err(mpsc::RecvTimeoutError::Timeout) => failed.push("an actor hangs"),
                _ if thread.handle.join().is_err() => failed.push("an actor panicked"),
                _ => {}
            }
        }
        if !thread::panicking() {
            assert!(failed.is_empty(), "{failed:?}");
        }
    }
}
