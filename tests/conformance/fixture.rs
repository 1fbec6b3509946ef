//! The fixture of a case, and the [`Harness`] of the adapter under test.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use advisory_locking::{KeyNamespace, LockErrorKind, LockKey, LockMode, LockOptions, RawLockKey};
use testkit::server::pause;

use crate::actor::{Actor, ActorChannel, Command, OUTER_LIMIT, Outcome};

/// A row of `pg_locks` for one key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LockEntry {
    pub(crate) pid: i32,
    pub(crate) mode: LockMode,
    pub(crate) granted: bool,
}

/// The lock table of a server, and the functions of an administrator.
pub(crate) trait LockTable {
    /// Returns the holders of a key, then its waiters.
    fn lock_entries(&self, key: &LockKey) -> Vec<LockEntry>;

    fn terminate(&self, pid: i32);

    /// Cancels the statement of a session.
    fn cancel(&self, pid: i32);

    /// Returns `true` if the last statement of a session was a rollback, and no transaction is
    /// open.
    fn has_rolled_back(&self, pid: i32) -> bool;

    /// Returns `true` if the last statement of a session ended its snapshot, in an open
    /// transaction.
    fn has_ended_snapshot(&self, pid: i32) -> bool;

    /// Waits until no case of any process reserves the extreme keys, which all of them share.
    /// Reserves them until the returned value is dropped.
    fn reserve_extreme_keys(&self) -> Box<dyn Any>;
}

/// One adapter, and an observer of its database.
pub(crate) trait Harness {
    /// Returns the function of a new actor's thread: it opens a connection and executes commands.
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send>;

    /// Returns the server's lock table; `None` for a backend without locks.
    fn lock_table(&self) -> Option<&dyn LockTable> {
        None
    }

    /// Returns `true` if a pool ends a transaction that plain SQL began on its connection.
    fn ends_raw_transactions(&self) -> bool {
        false
    }

    /// Returns `true` if the client sees a transaction that plain SQL began.
    fn sees_raw_transactions(&self) -> bool {
        false
    }

    /// Returns `true` if a lock statement fails that was prepared and that the session has lost.
    fn fails_on_lost_statements(&self) -> bool {
        true
    }

    /// Returns `true` if a connection survives a panic in a transaction of the library. Most async
    /// clients cannot roll back while they unwind.
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
pub(crate) struct Fixture {
    harness: Box<dyn Harness>,
    threads: RefCell<Vec<Thread>>,
    keys: RefCell<Vec<LockKey>>,
    namespace: KeyNamespace,
    pairs: Cell<i32>,
}

static FIXTURES: AtomicU64 = AtomicU64::new(0);

impl Fixture {
    pub(crate) fn new(harness: Box<dyn Harness>) -> Self {
        let number = FIXTURES.fetch_add(1, Ordering::Relaxed);
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

    /// Runs a case, and asserts that all of its keys are free afterwards.
    pub(crate) fn run(harness: Box<dyn Harness>, case: impl FnOnce(&Self)) {
        let fixture = Self::new(harness);
        case(&fixture);
        fixture.assert_clean();
    }

    pub(crate) fn actor(&self) -> Actor {
        self.spawn_actor(self.harness.actor())
    }

    /// Starts an actor of another harness on the same database.
    pub(crate) fn spawn_actor(&self, run: Box<dyn FnOnce(&ActorChannel) + Send>) -> Actor {
        let (commands, inbox) = mpsc::channel();
        let (outbox, outcomes) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let handle = thread::spawn(move || {
            // Dropped when the thread ends, also by a panic.
            let _end: Sender<()> = end;
            let channel = ActorChannel {
                commands: std::sync::Mutex::new(inbox),
                outcomes: outbox,
            };
            run(&channel);
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

    /// Returns a key that no other test uses.
    pub(crate) fn key(&self, name: &str) -> LockKey {
        self.track_key(self.namespace.key(name))
    }

    /// Returns two pairs with the same first number that no other test uses.
    pub(crate) fn pairs(&self) -> (LockKey, LockKey) {
        let first = match self.namespace.key("pair").raw() {
            RawLockKey::Single(number) => (number >> 33) as i32,
            RawLockKey::Pair(first, _) => first,
        };
        let second = self.pairs.get();
        self.pairs.set(second + 2);
        (
            self.track_key(LockKey::from((first, second))),
            self.track_key(LockKey::from((first, second + 1))),
        )
    }

    /// Adds a key that must be free after the case.
    pub(crate) fn track_key(&self, key: impl Into<LockKey>) -> LockKey {
        let key = key.into();
        self.keys.borrow_mut().push(key.clone());
        key
    }

    pub(crate) fn excludes(&self) -> bool {
        self.harness.lock_table().is_some()
    }

    pub(crate) fn sees_raw_transactions(&self) -> bool {
        self.harness.sees_raw_transactions()
    }

    pub(crate) fn ends_raw_transactions(&self) -> bool {
        self.harness.ends_raw_transactions()
    }

    /// Returns the expected outcome of a contended call: `Granted` on a backend without locks.
    pub(crate) fn contended_outcome(&self, outcome: Outcome) -> Outcome {
        if self.excludes() {
            outcome
        } else {
            Outcome::Granted
        }
    }

    /// Asserts the outcome of a contended call. On a backend without locks the actor was granted
    /// the lock, and releases it.
    #[track_caller]
    pub(crate) fn assert_contended(&self, actor: &Actor, outcome: Outcome, expected: Outcome) {
        assert_eq!(outcome, self.contended_outcome(expected), "second session");
        if outcome == Outcome::Granted {
            assert_eq!(actor.release(), Outcome::Done);
        }
    }

    /// Asserts that a `try_` method does not grant a contended lock.
    #[track_caller]
    pub(crate) fn assert_not_granted(&self, actor: &Actor, key: &LockKey, options: LockOptions) {
        let outcome = actor.try_acquire(key, options);
        self.assert_contended(actor, outcome, Outcome::NotGranted);
    }

    /// Asserts the error of a contended lock.
    #[track_caller]
    pub(crate) fn assert_acquire_fails(
        &self,
        actor: &Actor,
        key: &LockKey,
        options: LockOptions,
        kind: LockErrorKind,
    ) {
        let outcome = actor.acquire(key, options);
        self.assert_contended(actor, outcome, Outcome::Failed(kind));
    }

    pub(crate) fn lock_entries(&self, key: &LockKey) -> Vec<LockEntry> {
        let table = self.harness.lock_table();
        table.map_or_else(Vec::new, |table| table.lock_entries(key))
    }

    /// Asserts that a key has these holders and no waiters. It has no holders on a backend without
    /// locks.
    #[track_caller]
    pub(crate) fn assert_held(&self, key: &LockKey, modes: &[LockMode]) {
        let held: Vec<_> = self
            .lock_entries(key)
            .iter()
            .map(|held| (held.mode, held.granted))
            .collect();
        let expected = if self.excludes() { modes } else { &[] };
        let expected: Vec<_> = expected.iter().map(|mode| (*mode, true)).collect();
        assert_eq!(held, expected, "holders of {key}");
    }

    #[track_caller]
    pub(crate) fn assert_free(&self, key: &LockKey) {
        self.assert_held(key, &[]);
    }

    /// Waits until a key is free. An async client may have its release still in flight.
    #[track_caller]
    pub(crate) fn assert_soon_free(&self, key: &LockKey) {
        until(OUTER_LIMIT, || {
            self.lock_entries(key).is_empty().then_some(())
        })
        .unwrap_or_else(|| panic!("holders of {key}: {:?}", self.lock_entries(key)));
    }

    pub(crate) fn fails_on_lost_statements(&self) -> bool {
        self.harness.fails_on_lost_statements()
    }

    pub(crate) fn survives_panics(&self) -> bool {
        self.harness.survives_panics()
    }

    /// Blocks until the key has this many waiters.
    #[track_caller]
    pub(crate) fn until_queued(&self, key: &LockKey, waiters: usize) {
        until(OUTER_LIMIT, || {
            let queued = self
                .lock_entries(key)
                .iter()
                .filter(|held| !held.granted)
                .count();
            (queued == waiters).then_some(())
        })
        .unwrap_or_else(|| {
            panic!(
                "{waiters} sessions wait for {key}: {:?}",
                self.lock_entries(key)
            )
        });
    }

    fn server(&self) -> &dyn LockTable {
        let table = self.harness.lock_table();
        table.expect("a backend without locks has no server sessions")
    }

    pub(crate) fn has_rolled_back(&self, pid: i32) -> bool {
        self.server().has_rolled_back(pid)
    }

    pub(crate) fn has_ended_snapshot(&self, pid: i32) -> bool {
        self.server().has_ended_snapshot(pid)
    }

    pub(crate) fn reserve_extreme_keys(&self) -> Option<Box<dyn Any>> {
        Some(self.harness.lock_table()?.reserve_extreme_keys())
    }

    pub(crate) fn terminate(&self, actor: &Actor) {
        self.terminate_pid(pid(actor));
    }

    pub(crate) fn terminate_pid(&self, pid: i32) {
        self.server().terminate(pid);
    }

    pub(crate) fn cancel_pid(&self, pid: i32) {
        self.server().cancel(pid);
    }

    /// Asserts that all keys are free while the actors' sessions are still open.
    fn assert_clean(&self) {
        for key in self.keys.borrow().iter() {
            let clean = until(OUTER_LIMIT, || {
                self.lock_entries(key).is_empty().then_some(())
            });
            let left = self.lock_entries(key);
            assert!(
                clean.is_some(),
                "still held or waited for after the case: {key}: {left:?}"
            );
        }
    }
}

/// Returns the process id of an actor's session.
pub(crate) fn pid(actor: &Actor) -> i32 {
    i32::try_from(actor.number(crate::actor::SqlCommand::Pid)).expect("a process id")
}

/// Repeats `probe` until it returns `Some` or the limit has passed.
pub(crate) fn until<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        let answer = probe();
        if answer.is_some() || began.elapsed() > limit {
            return answer;
        }
        thread::sleep(pause(began));
    }
}

impl Drop for Fixture {
    /// Stops all actors. All commands are sent before the first join, so that an actor that waits
    /// for another's lock gets it.
    fn drop(&mut self) {
        let threads = std::mem::take(self.threads.get_mut());
        for thread in &threads {
            // The thread may have panicked.
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
