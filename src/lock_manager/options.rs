//! Options of a lock manager: [`LockManagerOptions`].

use std::time::Duration;

use crate::error::{LockError, LockErrorKind};
use crate::session::{ServerSigns, TokenSource};

/// Behaviour of a lock manager on a backend that has no locks, such as SQLite.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum NoLockBackend {
    /// Grants every request without a lock, as
    /// [`LockOptions::on_missing_lock`](crate::LockOptions::on_missing_lock) of the call says. This
    /// is the behaviour without a lock manager.
    #[default]
    NoOp,
    /// Excludes the callers of this lock manager with its wait queues. Other processes and other
    /// lock managers are not excluded.
    ///
    /// [`LockOptions::on_missing_lock`](crate::LockOptions::on_missing_lock) of the call does not
    /// apply: there is neither an error nor a warning.
    InProcess,
}

/// A shorter keep-alive than this would take a session for lost that replies a little late.
const MIN_KEEP_ALIVE: Duration = Duration::from_millis(100);

/// Options of a lock manager: number of sessions, hand-off limit, keep-alive, fencing tokens.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use advisory_locking::lock_manager::LockManagerOptions;
///
/// let options = LockManagerOptions::new()
///     .max_sessions(2)
///     .hand_off_limit(100, Duration::from_millis(20))
///     .keep_alive(Duration::from_secs(2));
/// assert_ne!(options, LockManagerOptions::new());
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct LockManagerOptions {
    pub(crate) max_sessions: usize,
    pub(crate) max_waiting_sessions: usize,
    pub(crate) max_hand_offs: u32,
    pub(crate) max_hand_off_time: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) token_source: TokenSource,
    pub(crate) no_lock_backend: NoLockBackend,
    pub(crate) accepted_signs: ServerSigns,
    /// Maximum number of operations in a batch: large enough that the round trip is not the
    /// bottleneck, small enough to bound the latency.
    pub(crate) max_batch_len: usize,
}

impl LockManagerOptions {
    /// Returns the defaults, which the documentation of each option names.
    pub const fn new() -> Self {
        Self {
            max_sessions: 1,
            max_waiting_sessions: 1,
            max_hand_offs: u32::MAX,
            max_hand_off_time: Duration::from_millis(50),
            keep_alive: Duration::from_secs(5),
            token_source: TokenSource::TransactionId,
            no_lock_backend: NoLockBackend::NoOp,
            accepted_signs: ServerSigns::NONE,
            max_batch_len: 1_000,
        }
    }

    /// Sets the maximum number of sessions, and thereby connections of the pool, that acquire and
    /// hold locks. Default 1, minimum 1.
    ///
    /// One session serves thousands of keys, because operations that arrive while a statement is in
    /// flight share the next statement. A lost session loses only its own locks; that is the
    /// benefit of more sessions. The first session is opened by the first call. Further ones are
    /// opened when all are busy, and no call waits for them.
    pub const fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// Sets the maximum number of additional sessions that wait on the server, each for one key.
    /// Default 1.
    ///
    /// They serve keys whose first waiter uses [`WaitStrategy::Block`](crate::WaitStrategy::Block).
    /// Such a key is polled while its session is being opened, while all of them are occupied, and
    /// with 0.
    pub const fn max_waiting_sessions(mut self, sessions: usize) -> Self {
        self.max_waiting_sessions = sessions;
        self
    }

    /// Limits how often and how long a lock is handed off in this process before it is released for
    /// other processes. Default: any number of times within 50 ms.
    ///
    /// A hand-off costs no round trip. When the count or the time is reached, the lock is released.
    /// The first waiter of this process decides the next step:
    ///
    /// | first waiter | next acquire | who may acquire the lock before |
    /// |---|---|---|
    /// | blocks ([`WaitStrategy::Block`](crate::WaitStrategy::Block)) | at once | sessions that wait in the server's queue |
    /// | polls, and another session held the lock at the last attempt | after half to one [`interval`](crate::LockOptions::interval) | also clients that poll |
    /// | polls, and no other session was seen | after half as long as the time before, down to 1/32 to 1/8 of the interval | also clients that poll |
    ///
    /// The pause exists because the server does not show clients that poll. With a count of 0 or 1
    /// every holder acquires from the server. The limit also applies to shared locks: after it a
    /// new request waits until all holders have released.
    ///
    /// The default was measured with four processes. In each of them, 16 tasks hold one key for 1
    /// ms and poll (`benches/lock_manager.rs`, part `hand-off-time`). The figures are in
    /// `benches/results/lock-manager.csv`. A longer time leaves the lock free for less of the time;
    /// a shorter one passes it to another process more often:
    ///
    /// | time | holders per second, all processes | Jain's index between processes: median, and the lower of the two runs of 4 s |
    /// |---|---|---|
    /// | 10 ms | 224 | 0.96, 0.90 |
    /// | 20 ms | 295 | 0.90, 0.87 |
    /// | **50 ms** | 349 | 0.96, 0.87 |
    /// | 100 ms | 409 | 0.94, 0.88 |
    /// | 200 ms | 448 | 0.91, 0.51 |
    ///
    /// The index varies between runs and shows no trend, because the next holder among polling
    /// clients is random. At 100 ms, 4 s have only some 40 such changes of the process.
    pub const fn hand_off_limit(mut self, count: u32, time: Duration) -> Self {
        (self.max_hand_offs, self.max_hand_off_time) = (count, time);
        self
    }

    /// Sets the interval at which idle sessions are checked and the time in which a session must
    /// reply. Default 5 s, minimum 100 ms.
    ///
    /// A lost session is detected within **twice** this time, also if the network does not report
    /// it. `is_lost()` and `lost()` of the guard notify the holder. A session that waits on the
    /// server cannot be checked: if its connection is lost silently, the wait ends at its limit.
    ///
    /// A connection that the server closes is detected earlier. The pool's client decides the time:
    ///
    /// | client | latest time |
    /// |---|---|
    /// | diesel-async, tokio-postgres | 250 ms, independent of this option |
    /// | SeaORM, sqlx, blocking clients | the next statement, or this time |
    pub const fn keep_alive(mut self, every: Duration) -> Self {
        self.keep_alive = every;
        self
    }

    /// Sets the source of fencing tokens. Default [`TokenSource::TransactionId`].
    pub fn fencing_tokens(mut self, source: TokenSource) -> Self {
        self.token_source = source;
        self
    }

    /// Sets the behaviour on a backend without locks. Default [`NoLockBackend::NoOp`].
    pub const fn on_no_lock_backend(mut self, policy: NoLockBackend) -> Self {
        self.no_lock_backend = policy;
        self
    }

    /// Accepts sessions on a server that is known to grant every lock to every session, as
    /// [`LockOptions::trust_server`](crate::LockOptions::trust_server) says. The sessions serve all
    /// calls, so it is an option of the lock manager.
    pub const fn trust_server(mut self) -> Self {
        self.accepted_signs = self.accepted_signs.union(ServerSigns::STUBS);
        self
    }

    /// Accepts sessions on a hot standby, as
    /// [`LockOptions::allow_standby`](crate::LockOptions::allow_standby) says. The sessions serve
    /// all calls, so it is an option of the lock manager.
    pub const fn allow_standby(mut self) -> Self {
        self.accepted_signs = self.accepted_signs.union(ServerSigns::STANDBY);
        self
    }

    /// Returns an error for options that cannot work.
    pub(crate) fn validate(&self) -> Result<(), LockError> {
        let invalid =
            |message| Err(LockError::new(LockErrorKind::InvalidOptions).with_context(message));
        if self.max_sessions == 0 {
            return invalid("a lock manager has at least 1 session");
        }
        if self.keep_alive < MIN_KEEP_ALIVE {
            return invalid("a keep-alive is at least 100 ms, in which a healthy session replies");
        }
        if let TokenSource::Sequence(name) = &self.token_source {
            if name.is_empty() || name.contains('\0') {
                return invalid("the name of a sequence is not empty and contains no NUL");
            }
        }
        Ok(())
    }
}

impl Default for LockManagerOptions {
    fn default() -> Self {
        Self::new()
    }
}
