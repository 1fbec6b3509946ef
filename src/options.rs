//! How to take a lock: [`LockOptions`].

use std::time::Duration;

use crate::error::{LockError, LockErrorKind};

/// Who else may hold the lock at the same time.
#[expect(
    clippy::exhaustive_enums,
    reason = "PostgreSQL has exactly these two modes"
)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum LockMode {
    /// Nobody else.
    #[default]
    Exclusive,
    /// Others who ask for shared mode; nobody who asks for exclusive mode.
    Shared,
}

/// How to wait for a lock that another session holds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum WaitStrategy {
    /// The server waits: the session queues in the order of arrival and is granted the lock as soon as it is free.
    ///
    /// Fair and quick to take over, and the server breaks deadlocks
    /// ([`Deadlock`](LockErrorKind::Deadlock)). But a session that waits holds a snapshot: `CREATE INDEX CONCURRENTLY` under
    /// the lock waits for it and one of the two is ended as a deadlock. Needs the language `plpgsql`, which every database
    /// has unless it was dropped.
    Block,
    /// The client asks again and again, with growing, jittered pauses.
    ///
    /// Needs nothing of the server and stands in nobody's way, so it is the default. But it is not fair (a busy key goes
    /// to those who queue on the server), takes the lock over only at its next turn, and two clients that wait for each
    /// other wait until their limit.
    #[default]
    Poll,
}

/// What to do on a backend that has no locks, such as SQLite.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum OnMissingLock {
    /// Refuse with [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion); the body does not run.
    Error,
    /// Run the body unprotected and say nothing.
    Ignore,
    /// Run the body unprotected and log a warning, once per key, for a bounded number of keys.
    #[default]
    Warn,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum Wait {
    #[default]
    No,
    UpTo(Duration),
    Forever,
}

/// How to take a lock: whether to wait and how, in which mode, and what to do where there are no locks.
///
/// The default is not to wait, exclusive mode, a warning on backends without locks.
///
/// # Shape and units
///
/// The keywords of PormG's `with_advisory_lock`, which these options mirror, and their defaults:
///
/// | PormG | here |
/// |---|---|
/// | `wait=false` (default) | [`LockOptions::no_wait()`] (default) |
/// | `wait=true, timeout_ms=5000` (default limit) | [`LockOptions::wait_up_to(Duration::from_secs(5))`](Self::wait_up_to) (no default limit) |
/// | `strategy=:poll` (default) | [`strategy(WaitStrategy::Poll)`](Self::strategy) (default) |
/// | `strategy=:block` | [`strategy(WaitStrategy::Block)`](Self::strategy) |
/// | `interval_ms=100` (default), a fixed pause | [`interval(Duration::from_millis(100))`](Self::interval) (default), the longest of growing, jittered pauses |
/// | `on_missing_lock=:warn` (default) | [`on_missing_lock(OnMissingLock::Warn)`](Self::on_missing_lock) (default) |
/// | `on_missing_lock=:ignore` | [`on_missing_lock(OnMissingLock::Ignore)`](Self::on_missing_lock) |
/// | `on_missing_lock=:error` | [`on_missing_lock(OnMissingLock::Error)`](Self::on_missing_lock) |
/// | (none) | [`wait_forever()`](Self::wait_forever), [`shared()`](Self::shared), [`allow_in_transaction()`](Self::allow_in_transaction) |
///
/// Durations are measured with a monotonic clock. A wait on the server is rounded **up** to whole milliseconds, because
/// PostgreSQL takes anything below one millisecond for "no limit".
///
/// # Errors
///
/// Options that contradict each other are refused with [`InvalidOptions`](LockErrorKind::InvalidOptions) by every method
/// that takes them, on every backend, so that a mistake does not wait for production:
///
/// * an [`interval`](Self::interval) of zero, which would ask the server without pause;
/// * a [`strategy`](Self::strategy) or an [`interval`](Self::interval) on options that do not wait;
/// * an [`interval`](Self::interval) together with [`WaitStrategy::Block`], which makes no pauses;
/// * [`allow_in_transaction`](Self::allow_in_transaction) for a transaction-level lock, which is always in one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use advisory_locking::{LockOptions, OnMissingLock, WaitStrategy};
///
/// let skip_if_busy = LockOptions::no_wait();
/// let queue_for_ten_seconds = LockOptions::wait_up_to(Duration::from_secs(10))
///     .strategy(WaitStrategy::Block)
///     .on_missing_lock(OnMissingLock::Ignore);
/// assert_ne!(skip_if_busy, queue_for_ten_seconds);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[must_use]
pub struct LockOptions {
    wait: Wait,
    mode: LockMode,
    strategy: Option<WaitStrategy>,
    interval: Option<Duration>,
    on_missing_lock: OnMissingLock,
    in_transaction: bool,
}

impl LockOptions {
    const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

    const fn waiting(wait: Wait) -> Self {
        Self {
            wait,
            mode: LockMode::Exclusive,
            strategy: None,
            interval: None,
            on_missing_lock: OnMissingLock::Warn,
            in_transaction: false,
        }
    }

    /// Asks once; a lock held elsewhere is not waited for.
    pub const fn no_wait() -> Self {
        Self::waiting(Wait::No)
    }

    /// Waits until the lock is granted or `limit` has passed.
    ///
    /// Zero asks once. Any limit is valid up to [`Duration::MAX`], which is a limit still: only
    /// [`wait_forever`](Self::wait_forever) has none.
    pub const fn wait_up_to(limit: Duration) -> Self {
        Self::waiting(Wait::UpTo(limit))
    }

    /// Waits until the lock is granted, however long that takes.
    ///
    /// Prefer a limit. With [`WaitStrategy::Block`], a client that vanishes without closing its connection (a cut network)
    /// keeps its place in the server's queue, may be granted the lock, and holds it until TCP gives up: by default after
    /// more than two hours. A limit bounds that.
    pub const fn wait_forever() -> Self {
        Self::waiting(Wait::Forever)
    }

    /// Asks for shared mode instead of exclusive mode.
    pub const fn shared(mut self) -> Self {
        self.mode = LockMode::Shared;
        self
    }

    /// Asks for the given mode.
    pub const fn mode(mut self, mode: LockMode) -> Self {
        self.mode = mode;
        self
    }

    /// Chooses how to wait; [`WaitStrategy::Poll`] unless said.
    pub const fn strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = Some(strategy);
        self
    }

    /// The longest pause between two questions of [`WaitStrategy::Poll`]; 100 ms unless said.
    ///
    /// The first pause is up to a sixteenth of it, each further one up to twice the one before. Every pause is drawn at
    /// random from the upper half of its range, so that clients that began together drift apart.
    pub const fn interval(mut self, longest_pause: Duration) -> Self {
        self.interval = Some(longest_pause);
        self
    }

    /// Chooses what happens on a backend without locks; [`OnMissingLock::Warn`] unless said.
    pub const fn on_missing_lock(mut self, policy: OnMissingLock) -> Self {
        self.on_missing_lock = policy;
        self
    }

    /// Allows a session-level lock inside an open transaction, which is refused otherwise.
    ///
    /// The lock is released when the guard goes or the body ends, **before** the transaction commits: the next holder does
    /// not see what was written under the lock. Right only if the lock guards something that is not in this database. For
    /// everything else, take the lock before the transaction begins, or take a transaction-level lock.
    pub const fn allow_in_transaction(mut self) -> Self {
        self.in_transaction = true;
        self
    }

    pub(crate) const fn lock_mode(&self) -> LockMode {
        self.mode
    }

    pub(crate) const fn wait(&self) -> Wait {
        self.wait
    }

    /// Whether somebody who is refused at first asks again.
    #[cfg_attr(
        not(feature = "lock-manager"),
        allow(dead_code, reason = "for a LockManager")
    )]
    pub(crate) const fn waits(&self) -> bool {
        match self.wait {
            Wait::No => false,
            Wait::UpTo(limit) => !limit.is_zero(),
            Wait::Forever => true,
        }
    }

    pub(crate) fn wait_strategy(&self) -> WaitStrategy {
        self.strategy.unwrap_or_default()
    }

    pub(crate) fn max_interval(&self) -> Duration {
        self.interval.unwrap_or(Self::DEFAULT_INTERVAL)
    }

    pub(crate) const fn missing_lock_policy(&self) -> OnMissingLock {
        self.on_missing_lock
    }

    pub(crate) const fn allows_transaction(&self) -> bool {
        self.in_transaction
    }

    /// The options for a further wait when so much of the limit has passed; `None` if they do not wait.
    #[cfg(feature = "lock-manager")]
    pub(crate) fn after(mut self, elapsed: Duration) -> Option<Self> {
        match &mut self.wait {
            Wait::No => return None,
            Wait::UpTo(limit) => *limit = limit.saturating_sub(elapsed),
            Wait::Forever => {}
        }
        Some(self)
    }

    /// Refuses options that contradict each other.
    pub(crate) fn validate(&self) -> Result<(), LockError> {
        let refuse = |why| Err(LockError::new(LockErrorKind::InvalidOptions).with_context(why));
        if self.interval == Some(Duration::ZERO) {
            return refuse("an interval of zero would poll without pause");
        }
        if self.wait == Wait::No && (self.strategy.is_some() || self.interval.is_some()) {
            return refuse("options that do not wait have neither a strategy nor an interval");
        }
        if self.strategy == Some(WaitStrategy::Block) && self.interval.is_some() {
            return refuse("WaitStrategy::Block does not poll, so it has no interval");
        }
        Ok(())
    }
}

/// Owner of a lock: the session, or its transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LockScope {
    Session,
    Transaction,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        let wait = LockOptions::wait_up_to(Duration::from_secs(1));
        let bad = [
            wait.interval(Duration::ZERO),
            LockOptions::no_wait().strategy(WaitStrategy::Poll),
            LockOptions::no_wait().interval(Duration::from_millis(1)),
            wait.strategy(WaitStrategy::Block)
                .interval(Duration::from_millis(1)),
        ];
        for options in bad {
            let kind = options.validate().map_err(|error| error.kind());
            assert_eq!(kind, Err(LockErrorKind::InvalidOptions), "{options:?}");
        }
    }

    #[test]
    fn no_time_is_no_wait() {
        assert!(!LockOptions::no_wait().waits());
        assert!(!LockOptions::wait_up_to(Duration::ZERO).waits());
        assert!(LockOptions::wait_up_to(Duration::from_nanos(1)).waits());
        assert!(LockOptions::wait_forever().waits());
    }

    #[test]
    #[cfg(feature = "lock-manager")]
    fn what_is_left_of_a_limit() {
        let left = |options: LockOptions| options.after(Duration::from_secs(2));
        let of = |seconds| LockOptions::wait_up_to(Duration::from_secs(seconds)).shared();
        assert_eq!(left(LockOptions::no_wait()), None);
        assert_eq!(left(of(5)), Some(of(3)));
        assert_eq!(left(of(1)), Some(of(0)));
        let forever = LockOptions::wait_forever();
        assert_eq!(left(forever), Some(forever));
    }

    #[test]
    fn every_limit_is_valid() {
        for limit in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            assert!(LockOptions::wait_up_to(limit).validate().is_ok());
            assert!(
                LockOptions::wait_up_to(limit)
                    .strategy(WaitStrategy::Block)
                    .validate()
                    .is_ok()
            );
        }
        assert!(
            LockOptions::wait_forever()
                .interval(Duration::MAX)
                .validate()
                .is_ok()
        );
    }

    #[test]
    fn the_default_neither_waits_nor_shares() {
        assert_eq!(LockOptions::default(), LockOptions::no_wait());
        assert_eq!(LockOptions::default().lock_mode(), LockMode::Exclusive);
        assert_eq!(LockOptions::default().wait_strategy(), WaitStrategy::Poll);
        assert_eq!(
            LockOptions::default().max_interval(),
            Duration::from_millis(100)
        );
        assert_eq!(
            LockOptions::default().missing_lock_policy(),
            OnMissingLock::Warn
        );
    }
}
