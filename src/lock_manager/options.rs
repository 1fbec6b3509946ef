//! How a locker works: [`LockManagerOptions`].

use std::time::Duration;

use crate::error::{LockError, LockErrorKind};
use crate::session::TokenSource;

/// What a locker does on a backend that has no locks, such as SQLite.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum NoLockBackend {
    /// Nothing: everybody is let in, as [`OnMissingLock`](crate::OnMissingLock) says. The same as without a locker.
    #[default]
    NoOp,
    /// A real lock among the users of this locker: the queue that it has anyway. Other processes, and other lockers, are not excluded.
    InProcess,
}

/// How a locker works: on how many sessions, how long it hands a lock on, how it notices that a session is gone.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use advisory_locking::lock_manager::LockManagerOptions;
///
/// let options = LockManagerOptions::new()
///     .sessions(2)
///     .hand_off_limit(100, Duration::from_millis(20))
///     .keep_alive(Duration::from_secs(2));
/// assert_ne!(options, LockManagerOptions::new());
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct LockManagerOptions(pub(crate) Settings);

/// The options, for the core.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    pub(crate) max_sessions: usize,
    pub(crate) max_waiting_sessions: usize,
    pub(crate) max_hand_offs: u32,
    pub(crate) max_tenure: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) token_source: TokenSource,
    pub(crate) no_lock_backend: NoLockBackend,
    /// How many steps go in one round: so many that the round trip is no longer what costs, so few that nobody waits long for others.
    pub(crate) max_batch_len: usize,
}

impl LockManagerOptions {
    /// The defaults, which stand at each option.
    pub const fn new() -> Self {
        Self(Settings {
            max_sessions: 1,
            max_waiting_sessions: 1,
            max_hand_offs: u32::MAX,
            max_tenure: Duration::from_millis(50),
            keep_alive: Duration::from_secs(5),
            token_source: TokenSource::TransactionId,
            no_lock_backend: NoLockBackend::NoOp,
            max_batch_len: 1_000,
        })
    }

    /// How many sessions, and so connections of the pool, hold and ask for locks; 1 unless said, at least 1.
    ///
    /// One serves thousands of keys: what is asked while a statement is in flight goes with the next. A lost session loses its own locks only,
    /// which is what more are good for. The first is opened at the first call, the others when all are busy; nobody waits for those.
    pub const fn max_sessions(mut self, sessions: usize) -> Self {
        self.0.max_sessions = sessions;
        self
    }

    /// How many sessions more may wait on the server, each for one key; 1 unless said.
    ///
    /// For keys whose first waiter asks with [`WaitStrategy::Block`](crate::WaitStrategy::Block). With all of them busy, or with 0, such a key is polled.
    pub const fn max_waiting_sessions(mut self, sessions: usize) -> Self {
        self.0.max_waiting_sessions = sessions;
        self
    }

    /// How often and how long a lock is handed on in this process before it is given back to the server, for other processes; any number of
    /// times within 50 ms unless said.
    ///
    /// A hand-off costs no round trip. When one of the two bounds is reached, the lock is given back. Those who wait on the server have it then.
    /// Those who poll do not show, so the lock is left to them for a pause: as long as theirs (half to the whole of the first waiter's
    /// [`interval`](crate::LockOptions::interval)) if somebody took it in the last one, else half as long as the last, down to a sixteenth. If the
    /// first waiter waits on the server itself, there is no pause, and those who poll elsewhere come after all who wait there. With 0 or 1
    /// turns, every holder asks the server.
    ///
    /// Shared locks too: whoever comes after the bound waits until all who share the lock have given it back.
    ///
    /// The default is what was measured with four processes, in each of them 16 tasks that hold one key for 1 ms and poll (`benches/lock_manager.rs`, part
    /// `tenure`). The longer the time, the less of it passes while the lock is with nobody; the shorter, the more evenly it goes round:
    ///
    /// | time | holders a second, all processes | Jain's index between processes: median, and the lower of two runs of 4 s |
    /// |---|---|---|
    /// | 10 ms | 213 | 0.92, 0.73 |
    /// | 20 ms | 266 | 0.98, 0.96 |
    /// | **50 ms** | 342 | 0.98, 0.83 |
    /// | 100 ms | 396 | 0.94, 0.92 |
    /// | 200 ms | 427 | 0.93, 0.84 |
    ///
    /// Runs differ: who comes next is a matter of chance among those who poll, and at 100 ms there are some 40 turns in 4 s.
    pub const fn hand_off_limit(mut self, turns: u32, time: Duration) -> Self {
        (self.0.max_hand_offs, self.0.max_tenure) = (turns, time);
        self
    }

    /// How often an idle session is asked whether it is alive, and how long it has to answer; 5 s unless said.
    ///
    /// A session that is gone is noticed within **twice** this time, whether or not the network says so. A guard's holder is told by
    /// `is_lost()` and `lost()`. A wait on the server cannot be asked: one whose connection is gone without a sign ends at its limit.
    pub const fn keep_alive(mut self, every: Duration) -> Self {
        self.0.keep_alive = every;
        self
    }

    /// Where fencing tokens come from; [`TokenSource::TransactionId`] unless said.
    pub fn fencing_tokens(mut self, source: TokenSource) -> Self {
        self.0.token_source = source;
        self
    }

    /// What to do on a backend without locks; [`NoLockBackend::NoOp`] unless said.
    pub const fn on_no_lock_backend(mut self, policy: NoLockBackend) -> Self {
        self.0.no_lock_backend = policy;
        self
    }

    /// Refuses what cannot work.
    pub(crate) fn validate(&self) -> Result<(), LockError> {
        let refuse = |why| Err(LockError::new(LockErrorKind::InvalidOptions).with_context(why));
        if self.0.max_sessions == 0 {
            return refuse("a locker needs a session");
        }
        if self.0.keep_alive.is_zero() {
            return refuse("a keep-alive of zero would ask without pause");
        }
        Ok(())
    }
}

impl Default for LockManagerOptions {
    fn default() -> Self {
        Self::new()
    }
}
