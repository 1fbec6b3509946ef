//! Options of a lock request: [`LockOptions`].

use std::time::Duration;

use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
pub(crate) use crate::lock_mode::LockMode;
use crate::server_signs::ServerSigns;

/// Way to wait for a lock that another session holds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum WaitStrategy {
    /// The session waits in the server's queue, which is first in, first out. The server
    /// grants the lock as soon as the holder releases it.
    ///
    /// Use it for fairness and short hand-over times. A waiting session leaves the queue within a
    /// second after its client has disconnected. If the server, the role or the client sets
    /// [`client_connection_check_interval`](https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-CLIENT-CONNECTION-CHECK-INTERVAL),
    /// that interval applies instead. Both need PostgreSQL 14 or later on Linux, 15 or later on
    /// macOS and BSD. Diesel and diesel-async need the language
    /// [`plpgsql`](https://www.postgresql.org/docs/current/plpgsql.html), which every database has
    /// by default.
    ///
    /// The server detects a deadlock ([`Deadlock`](LockErrorKind::Deadlock)) only if every session
    /// in the cycle waits in the server. It sees no cycle that passes through the process of a
    /// client. Two such cases are a holder that works on another connection, and the waiters of a
    /// lock manager. They last until a limit passes, so set one.
    ///
    /// A waiting session keeps a snapshot for as long as it waits, with two consequences:
    ///
    /// * [`CREATE INDEX
    ///   CONCURRENTLY`](https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY)
    ///   under the lock waits for that snapshot. If it runs on the connection that holds the lock,
    ///   the server ends one of the two as a deadlock. On another connection, both wait until the
    ///   waiter's limit.
    /// * [`VACUUM`](https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY)
    ///   removes no row version in the whole database that was deleted since.
    Block,
    /// The client polls: it tries again after growing, jittered pauses.
    ///
    /// The default, because it holds no snapshot and no place in the server's queue. It is not
    /// fair: sessions in the server's queue are granted a contended lock first. A waiter acquires a
    /// free lock only at its next poll. Two clients that wait for each other wait until their
    /// limits, because the server cannot detect such a deadlock.
    ///
    /// A session that holds the lock in one mode may request the other. Before PostgreSQL 17, its
    /// polls find the lock contended while another session waits in the server's queue.
    /// [`Block`](Self::Block) is granted it at once.
    ///
    /// An attempt is granted for good or not at all. So pollers never make a free lock look
    /// contended to a call that does not wait.
    #[default]
    Poll,
}

impl WaitStrategy {
    /// Returns the name in metrics: `block` or `poll`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Poll => "poll",
        }
    }
}

/// Behaviour on a backend without locks, such as SQLite.
///
/// A lock manager with `NoLockBackend::InProcess` excludes its own callers, and does not apply this
/// option.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum OnMissingLock {
    /// Fails with [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion); the body does not run.
    Error,
    /// Runs the body without a lock and logs nothing.
    Ignore,
    /// Runs the body without a lock and logs a warning, once for each key and for a bounded number
    /// of keys.
    #[default]
    Warn,
}

/// Limit of a wait.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
enum Wait {
    #[default]
    No,
    UpTo(Duration),
    Forever,
}

/// Options of a lock request: wait, mode, and behaviour on a backend without locks.
///
/// The default is exclusive mode, no wait, and a warning on backends without locks.
///
/// # Shape and units
///
/// The options mirror the keywords of `with_advisory_lock` in PormG (Julia), with the same
/// defaults: see [coming from another library](crate::guide::coming_from).
///
/// A monotonic clock measures durations. A wait on the server is rounded **up** to whole
/// milliseconds, because
/// [`lock_timeout`](https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT)
/// treats zero as no limit.
///
/// # Serializable, read-only, deferrable
///
/// A session's transactions may be [serializable, read-only and
/// deferrable](https://www.postgresql.org/docs/current/sql-set-transaction.html) by default. Then
/// each attempt waits until the serializable transactions of other sessions have ended.
/// [`no_wait`](Self::no_wait) and limits do not bound that delay. Such a session should not acquire
/// locks.
///
/// # Errors
///
/// Every method that takes options rejects contradictory options with
/// [`InvalidOptions`](LockErrorKind::InvalidOptions), on every backend. So tests on SQLite find
/// these mistakes:
///
/// * an [`interval`](Self::interval) of zero, which would poll without a pause;
/// * a [`strategy`](Self::strategy) or an [`interval`](Self::interval) on options that do not wait;
/// * an [`interval`](Self::interval) together with [`WaitStrategy::Block`], which does not poll;
/// * [`allow_in_transaction`](Self::allow_in_transaction) for a transaction-level lock, which
///   always is inside a transaction.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use advisory_locking::{LockOptions, OnMissingLock, WaitStrategy};
///
/// // The functions are `const`, so an application names its options once.
/// const TURN: LockOptions = LockOptions::wait_up_to(Duration::from_secs(10));
/// assert_ne!(TURN, TURN.shared());
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
    pub(crate) mode: LockMode,
    strategy: Option<WaitStrategy>,
    interval: Option<Duration>,
    pub(crate) on_missing_lock: OnMissingLock,
    /// A session-level lock is allowed inside an open transaction.
    pub(crate) in_transaction: bool,
    report_holders: Option<bool>,
    /// Signs of servers that the options accept although their locks may not exclude all other
    /// sessions.
    pub(crate) accepted_signs: ServerSigns,
    pub(crate) label: &'static str,
    pub(crate) warn_after: Option<Duration>,
    /// The part of the limit that passed before this request, such as the time of the checkout.
    pub(crate) elapsed: Duration,
}

impl LockOptions {
    const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

    /// Longest limit of a wait, 100 years: an [`Instant`](std::time::Instant) cannot measure
    /// [`Duration::MAX`].
    const LONGEST_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

    const fn waiting(wait: Wait) -> Self {
        Self {
            wait,
            mode: LockMode::Exclusive,
            strategy: None,
            interval: None,
            on_missing_lock: OnMissingLock::Warn,
            in_transaction: false,
            report_holders: None,
            accepted_signs: ServerSigns::NONE,
            label: "",
            warn_after: None,
            elapsed: Duration::ZERO,
        }
    }

    /// Tries once and does not wait for the lock.
    ///
    /// A call through a pool still waits for a connection, up to the pool's own timeout. The pool
    /// may have to open or check one, so there is no checkout without a wait. To bound that time,
    /// set the pool's timeout, or use [`wait_up_to`](Self::wait_up_to). The page
    /// [connections](crate::guide::connections) lists the settings of the pools.
    pub const fn no_wait() -> Self {
        Self::waiting(Wait::No)
    }

    /// Waits until the lock is granted or `limit` has passed.
    ///
    /// Through a pool, the limit covers the checkout too: the wait for the lock gets what the
    /// checkout left. If no connection arrived within the limit, or within the pool's own timeout
    /// if that is shorter, the call fails with [`Pool`](LockErrorKind::Pool). A checkout may take
    /// 100 ms in any case, because the pool may have to open or check a connection.
    ///
    /// After the limit the call may ask for the holders, which its error then contains: see
    /// [`report_holders`](Self::report_holders).
    ///
    /// The limit ends no statement whose reply does not arrive. If the network is silent, the call
    /// lasts until TCP gives up, and so does the checkout of r2d2. The page
    /// [outages](crate::guide::outages) has the settings that bound this time.
    ///
    /// The first answer of a lock manager has 100 ms in any case, too. A shorter limit bounds only
    /// the wait for other holders.
    ///
    /// A limit of zero tries once, and its checkout is that of [`no_wait`](Self::no_wait). Every
    /// limit up to [`Duration::MAX`] is valid and remains a limit: more than 100 years count as 100
    /// years. Only [`wait_forever`](Self::wait_forever) has none.
    pub const fn wait_up_to(limit: Duration) -> Self {
        Self::waiting(Wait::UpTo(limit))
    }

    /// Waits until the lock is granted, without a limit. A checkout from a pool is still bounded by
    /// the pool's own timeout.
    ///
    /// Prefer a limit. With [`WaitStrategy::Block`], a client behind a cut network keeps its place
    /// in the server's queue. The server may grant it the lock, and the session holds it until the
    /// server detects the dead TCP connection. With the [default keepalive
    /// settings](https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-TCP-KEEPALIVES-IDLE)
    /// of most systems that takes more than two hours. A limit bounds this time.
    pub const fn wait_forever() -> Self {
        Self::waiting(Wait::Forever)
    }

    /// Requests shared mode instead of exclusive mode.
    ///
    /// An exclusive waiter in the server's queue [precedes][lmgr] later shared requests. So an
    /// attempt in shared mode may find the lock contended although all holders share it. A client
    /// that polls for exclusive mode is in no queue: holders whose locks overlap keep it waiting.
    ///
    /// Before PostgreSQL 17, an exclusive holder's own attempt in shared mode is refused while such
    /// a waiter exists. A nested request that polls then waits for its own lock.
    ///
    /// [lmgr]: https://github.com/postgres/postgres/blob/master/src/backend/storage/lmgr/README
    pub const fn shared(mut self) -> Self {
        self.mode = LockMode::Shared;
        self
    }

    /// Requests the given mode.
    pub const fn mode(mut self, mode: LockMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the way to wait. Default: [`WaitStrategy::Poll`].
    ///
    /// With [`no_wait`](Self::no_wait), the call returns an error. If the limit may be zero, use
    /// [`wait_up_to`](Self::wait_up_to): a limit of zero tries once and accepts a strategy.
    pub const fn strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = Some(strategy);
        self
    }

    /// Sets the longest pause between two polls of [`WaitStrategy::Poll`]. Default: 100 ms.
    ///
    /// With [`no_wait`](Self::no_wait), the call returns an error, as for
    /// [`strategy`](Self::strategy).
    ///
    /// The first pause is at most 1/16 of `max_pause`. The bound doubles after each poll until it
    /// reaches `max_pause`. Each pause is random within the upper half of its bound, so that
    /// clients that start together do not poll together.
    pub const fn interval(mut self, max_pause: Duration) -> Self {
        self.interval = Some(max_pause);
        self
    }

    /// Sets the behaviour on a backend without locks. Default: [`OnMissingLock::Warn`].
    pub const fn on_missing_lock(mut self, policy: OnMissingLock) -> Self {
        self.on_missing_lock = policy;
        self
    }

    /// Allows a session-level lock inside an open transaction, which is an error otherwise.
    ///
    /// The lock is released when the guard is dropped or the body ends, **before** the transaction
    /// commits. The next holder then does not see the data that was written under the lock. This is
    /// correct only if the lock guards something outside this database. In all other cases acquire
    /// the lock before the transaction begins, or use a transaction-level lock.
    pub const fn allow_in_transaction(mut self) -> Self {
        self.in_transaction = true;
        self
    }

    /// Sets whether an error of this request contains the [holders](LockError::holders).
    ///
    /// | value | errors with holders |
    /// |---|---|
    /// | default | [`TimedOut`](LockErrorKind::TimedOut), [`Deadlock`](LockErrorKind::Deadlock) |
    /// | `true` | also [`HeldElsewhere`](LockErrorKind::HeldElsewhere), for one round trip more |
    /// | `false` | none |
    ///
    /// The crate asks the server after the wait, on the same connection and outside a transaction
    /// only. An async call waits at most 250 ms for the reply; a blocking call waits for it without
    /// a limit. If that fails, the error contains no holders. A lock manager and the methods that
    /// return `None` or `false` do not ask.
    pub const fn report_holders(mut self, report: bool) -> Self {
        self.report_holders = Some(report);
        self
    }

    /// Sets the label of the request and of its hold, for log events and
    /// [observers](crate::observer). Default: the empty text.
    ///
    /// A metric has the label as an attribute, because it is a text of the program and so has few
    /// values. The key is never one.
    pub const fn label(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }

    /// Warns when the lock is held for longer than `after`: one log event of level warning, while
    /// the lock is held. Default: no warning.
    ///
    /// It applies to bodies, guards and lock managers, blocking or async. A thread of the process
    /// sends the warnings; the first such lock starts it. The body goes on, and the lock stays
    /// held. The page [operating](crate::guide::operating) shows how to end a holder that hangs.
    ///
    /// The end of a transaction of the caller is not observed. So a lock that was acquired in one
    /// has no warning.
    pub const fn warn_after(mut self, after: Duration) -> Self {
        self.warn_after = Some(after);
        self
    }

    /// Returns `true` if an error of this kind contains the holders.
    pub(crate) fn reports_holders(&self, kind: LockErrorKind) -> bool {
        match kind {
            LockErrorKind::TimedOut | LockErrorKind::Deadlock => self.report_holders != Some(false),
            LockErrorKind::HeldElsewhere => self.report_holders == Some(true),
            _ => false,
        }
    }

    /// Accepts the grants of a server that is known to grant every lock to every session, which are
    /// [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion) otherwise.
    ///
    /// The refused servers are CockroachDB and a YugabyteDB whose error about missing advisory
    /// locks is silenced. Set it only for a release of which you know that these locks exclude
    /// other sessions. An example is a transaction-level lock on CockroachDB 26.3 or later, as its
    /// issues describe it; this crate was not tested with it.
    pub const fn trust_server(mut self) -> Self {
        self.accepted_signs = self.accepted_signs.union(ServerSigns::STUBS);
        self
    }

    /// Accepts a lock on a [hot standby](https://www.postgresql.org/docs/current/hot-standby.html),
    /// which is [`Standby`](LockErrorKind::Standby) otherwise.
    ///
    /// The lock excludes only the sessions of that standby: a session of the primary may hold the
    /// same lock. After a promotion both may go on.
    pub const fn allow_standby(mut self) -> Self {
        self.accepted_signs = self.accepted_signs.union(ServerSigns::STANDBY);
        self
    }

    /// Returns the time that is left to wait after `waited`; `None` without a limit.
    pub(crate) fn remaining(&self, waited: Duration) -> Option<Duration> {
        let limit = match self.wait {
            Wait::No => Duration::ZERO,
            Wait::UpTo(limit) => limit.saturating_sub(self.elapsed).min(Self::LONGEST_WAIT),
            Wait::Forever => return None,
        };
        Some(limit.saturating_sub(waited))
    }

    /// Returns the kind of the error if the lock is contended and no time is left to wait.
    pub(crate) const fn contended_kind(&self) -> LockErrorKind {
        match self.wait {
            Wait::No => LockErrorKind::HeldElsewhere,
            Wait::UpTo(_) | Wait::Forever => LockErrorKind::TimedOut,
        }
    }

    /// Returns the limit of the call, including the time that has passed.
    pub(crate) const fn limit(&self) -> Option<Duration> {
        match self.wait {
            Wait::UpTo(limit) => Some(limit),
            Wait::No | Wait::Forever => None,
        }
    }

    /// Returns `true` if a contended request waits.
    pub(crate) fn waits(&self) -> bool {
        self.remaining(Duration::ZERO) != Some(Duration::ZERO)
    }

    pub(crate) fn wait_strategy(&self) -> WaitStrategy {
        self.strategy.unwrap_or_default()
    }

    pub(crate) fn max_interval(&self) -> Duration {
        self.interval.unwrap_or(Self::DEFAULT_INTERVAL)
    }

    /// Returns the options for the rest of a wait after `elapsed`; `None` if they do not wait.
    #[cfg(feature = "lock-manager")]
    pub(crate) fn after(self, elapsed: Duration) -> Option<Self> {
        (self.wait != Wait::No).then(|| self.with_elapsed(elapsed))
    }

    /// Returns the options for the rest of a call after `elapsed`.
    pub(crate) const fn with_elapsed(mut self, elapsed: Duration) -> Self {
        self.elapsed = self.elapsed.saturating_add(elapsed);
        self
    }

    /// Rejects options that contradict each other.
    pub(crate) fn validate(&self, key: &LockKey, scope: LockScope) -> Result<(), LockError> {
        let invalid = || LockError::new(LockErrorKind::InvalidOptions).with_key(key);
        let refuse = |why| Err(invalid().with_context(why));
        if self.interval == Some(Duration::ZERO) {
            return refuse("an interval of zero would poll without a pause");
        }
        if self.wait == Wait::No && (self.strategy.is_some() || self.interval.is_some()) {
            return refuse("options that do not wait have neither a strategy nor an interval");
        }
        if self.strategy == Some(WaitStrategy::Block) && self.interval.is_some() {
            return refuse("WaitStrategy::Block does not poll, so it has no interval");
        }
        if scope == LockScope::Transaction && self.in_transaction {
            return refuse("a transaction-level lock is always inside a transaction");
        }
        Ok(())
    }
}

/// Lock scope in PostgreSQL's terms: session-level or transaction-level.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LockScope {
    /// The lock is held until it is released, or its session ends.
    Session,
    /// The lock is held until its transaction ends.
    Transaction,
}

impl LockScope {
    /// Returns the name in logs and metrics: `session` or `transaction`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
        }
    }
}

#[cfg(test)]
mod tests;
