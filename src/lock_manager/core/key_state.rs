//! State of one key: phase, wait queue, holders, poll schedule, hand-off limit.
//!
//! # Implementation details
//!
//! The phase names the session, if any, that works on the key. [`KeyState::apply`] is the only
//! function that assigns it, and a test compares that function with this table. A pair of phase and
//! event that is not listed leaves the phase as it is. `reacquire` is the flag of
//! [`KeyPhase::Releasing`]. "Commands" are emitted by the handler of the event.
//!
//! | phase | event | next phase | reported by | commands, next event |
//! |---|---|---|---|---|
//! | `NotHeld` | `AcquireSent` | `Acquiring` | first request of a key; request that does not wait, without a session; poll timer; after a release or a failure with waiters left | `RunBatch` with `Acquire`; `Open` if a further session is needed |
//! | `NotHeld` | `Granted` | `Held` | the same, on a backend without locks and with [`NoLockBackend::InProcess`] | grants waiters |
//! | `NotHeld` | `WaitStarted` | `WaitingOnServer` | contended, or a dedicated session was opened; the first waiter uses [`WaitStrategy::Block`] | `Failed` for requests that do not wait; `WaitOnServer` |
//! | `Acquiring` | `Granted` | `Held` | reply to `Acquire` | grants waiters |
//! | `Acquiring` | `NotGranted` | `NotHeld` | reply to `Acquire`: contended | `Failed` for requests that do not wait; then `WaitStarted`, a poll timer (and `Open` of a dedicated session), or `AcquireSent` for a newer request that does not wait |
//! | `Acquiring` | `NotGranted` | `NotHeld` | compensated batch; bad sequence; session cannot be opened; backend without locks | `Failed` for the waiters that the error concerns; then `AcquireSent`, `Granted` in the process, or a poll timer |
//! | `WaitingOnServer` | `Granted` | `Held` | end of the server wait | grants waiters |
//! | `WaitingOnServer` | `NotGranted` | `NotHeld` | end of the server wait; no blocking waiter left; the first waiter shares, unlike the wait; lock manager closed | `Close` or `Terminate` of the session; `Failed` for the waiter that the error concerns; poll timer |
//! | `Held` | `TokenRequested` | `IssuingToken` | first waiter is next and needs a fencing token | `RunBatch` with `IssueToken` |
//! | `Held` | `ReleaseSent` | `Releasing` | no holder, and no waiter that may be granted now | `RunBatch` with `Release`, and with `Acquire` if `reacquire`; poll timer if the key yields |
//! | `IssuingToken` | `TokenIssued` | `Held` | reply to `IssueToken` | grants waiters |
//! | `IssuingToken` | `NotGranted` | `Held` | compensated batch; bad sequence | `Failed` for the first waiter; grants waiters |
//! | `Releasing` | `Released` | `NotHeld`, or `Acquiring` if `reacquire` | reply to `Release`; compensated batch | `Released`; without `reacquire` and poll timer, `AcquireSent` for the next waiter |
//! | `Held` in the process | `Released` | `NotHeld` | no holder, and no waiter that may be granted now | `Released`; `Granted` for the next waiter |
//! | every phase with a session | `SessionLost` | `NotHeld` | error of a session; missed keep-alive; lock manager closed while it opens the session | `SessionLost`, `Terminate`; `Released` with an error; `Failed` for requests that do not wait and had their retry, and for all if the session changed; poll timer, or `AcquireSent` for the retry |
//!
//! "Grants waiters" is [`Core::grant_waiters`](super::Core::grant_waiters): it emits `Granted`
//! while the first waiter is compatible and the hand-off limit is not reached. Then it reports
//! `TokenRequested`, or `ReleaseSent` if the key has no holder. A new request, a cancelled first
//! request and a released holder of a `Held` key call it too.
//!
//! A key that is `NotHeld` and has no waiter is removed, together with its timers. So the memory of
//! a lock manager grows with the keys in use only.
//!
//! [`NoLockBackend::InProcess`]: crate::lock_manager::NoLockBackend::InProcess
//! [`WaitStrategy::Block`]: crate::WaitStrategy::Block

use std::time::{Duration, Instant};

use super::wait_queue::WaitQueue;
use super::{RequestId, SessionId};
use crate::key::LockKey;
use crate::lock_manager::options::LockManagerOptions;
use crate::options::LockMode;
use crate::protocol::Backoff;

/// Polls are aligned to multiples of the poll interval divided by this number.
const POLL_ALIGNMENT: u32 = 16;

/// State of a key in use.
#[derive(Debug)]
pub(super) struct KeyState<W> {
    phase: KeyPhase,
    /// The key with its text, for snapshots; that of the first request.
    pub(super) name: LockKey,
    /// Time of the last grant to a holder.
    pub(super) last_grant: Option<Instant>,
    pub(super) queue: WaitQueue<W>,
    pub(super) holders: Vec<RequestId>,
    /// Caller whose release is in flight; `Some` only while [`KeyPhase::Releasing`].
    pub(super) releaser: Option<W>,
    /// Newest request when the acquire was sent. The reply answers no later request.
    pub(super) newest_when_sent: RequestId,
    /// Time of the first grant since other processes last had a chance to acquire the lock.
    pub(super) hand_offs_since: Option<Instant>,
    /// Number of grants since then.
    pub(super) hand_offs: u32,
    /// A grant to a waiter has followed the last grant of the server.
    pub(super) granted_since_acquire: bool,
    /// Time of the poll timer.
    pub(super) next_poll: Option<Instant>,
    pub(super) backoff: Option<Backoff>,
    /// The first pause after the hand-off limit is at most the poll interval divided by this
    /// number. It is 1 after contention by another session. Each such pause doubles it, up to
    /// [`POLL_ALIGNMENT`].
    pub(super) yield_divisor: u32,
}

/// Phase of a key. See the transition table of the [module](self).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum KeyPhase {
    /// No session of this lock manager holds the lock or has sent an acquire.
    NotHeld,
    /// An acquire is in the outbox of the session, or in flight.
    Acquiring { session: SessionId },
    /// A session dedicated to the key waits in the server's queue.
    WaitingOnServer { session: SessionId, mode: LockMode },
    /// The session holds the lock.
    Held { session: SessionId, mode: LockMode },
    /// The session holds the lock and issues a fencing token for the first waiter.
    IssuingToken { session: SessionId, mode: LockMode },
    /// A release is in the outbox of the session, or in flight; with `reacquire`, an acquire
    /// follows in the same batch.
    Releasing { session: SessionId, reacquire: bool },
}

impl KeyPhase {
    pub(super) const fn session(self) -> Option<SessionId> {
        match self {
            Self::NotHeld => None,
            Self::Acquiring { session }
            | Self::WaitingOnServer { session, .. }
            | Self::Held { session, .. }
            | Self::IssuingToken { session, .. }
            | Self::Releasing { session, .. } => Some(session),
        }
    }
}

/// Event that moves a key to another phase.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyEvent {
    /// An acquire was added to the outbox of the session.
    AcquireSent {
        session: SessionId,
    },
    /// The session holds the lock.
    Granted {
        session: SessionId,
        mode: LockMode,
    },
    /// The acquire, the wait or the token ended without a grant: contention, a limit, or a failure
    /// that the session has survived.
    NotGranted,
    /// The session was told to wait in the server's queue.
    WaitStarted {
        session: SessionId,
        mode: LockMode,
    },
    /// An operation for a fencing token was added to the outbox.
    TokenRequested,
    TokenIssued,
    /// A release was added to the outbox, and an acquire if `reacquire`.
    ReleaseSent {
        reacquire: bool,
    },
    Released,
    SessionLost,
}

impl<W> KeyState<W> {
    pub(super) fn new(name: LockKey) -> Self {
        Self {
            phase: KeyPhase::NotHeld,
            name,
            last_grant: None,
            queue: WaitQueue::default(),
            holders: Vec::new(),
            releaser: None,
            newest_when_sent: RequestId(0),
            hand_offs_since: None,
            hand_offs: 0,
            granted_since_acquire: false,
            next_poll: None,
            backoff: None,
            yield_divisor: POLL_ALIGNMENT,
        }
    }

    pub(super) const fn phase(&self) -> KeyPhase {
        self.phase
    }

    /// Moves to the next phase: the transition table of the [module](self).
    pub(super) const fn apply(&mut self, event: KeyEvent) {
        use {KeyEvent as Event, KeyPhase as Phase};
        self.phase = match (self.phase, event) {
            (Phase::NotHeld, Event::AcquireSent { session })
            | (
                Phase::Releasing {
                    session,
                    reacquire: true,
                },
                Event::Released,
            ) => Phase::Acquiring { session },
            (
                Phase::NotHeld | Phase::Acquiring { .. } | Phase::WaitingOnServer { .. },
                Event::Granted { session, mode },
            )
            | (Phase::IssuingToken { session, mode }, Event::TokenIssued | Event::NotGranted) => {
                Phase::Held { session, mode }
            }
            (Phase::NotHeld, Event::WaitStarted { session, mode }) => {
                Phase::WaitingOnServer { session, mode }
            }
            (Phase::Held { session, mode }, Event::TokenRequested) => {
                Phase::IssuingToken { session, mode }
            }
            (Phase::Held { session, .. }, Event::ReleaseSent { reacquire }) => {
                Phase::Releasing { session, reacquire }
            }
            (Phase::Acquiring { .. } | Phase::WaitingOnServer { .. }, Event::NotGranted)
            | (
                Phase::Releasing {
                    reacquire: false, ..
                }
                | Phase::Held {
                    session: SessionId::IN_PROCESS,
                    ..
                },
                Event::Released,
            )
            | (_, Event::SessionLost) => Phase::NotHeld,
            (unchanged, _) => unchanged,
        };
    }

    /// Adds a holder.
    pub(super) fn add_holder(&mut self, holder: RequestId, now: Instant) {
        self.last_grant = Some(now);
        self.granted_since_acquire = true;
        // Most keys have one holder, but a vector that grows starts with a capacity of four.
        if self.holders.capacity() == 0 {
            self.holders.reserve_exact(1);
        }
        self.holders.push(holder);
    }

    /// Returns whether the lock must be released for other processes before it is handed off again.
    pub(super) fn hand_off_limit_reached(
        &self,
        options: &LockManagerOptions,
        now: Instant,
    ) -> bool {
        let elapsed = self
            .hand_offs_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        // At least one grant follows each acquire, even with a limit of zero.
        self.granted_since_acquire
            && (self.hand_offs >= options.max_hand_offs || elapsed >= options.max_hand_off_time)
    }

    /// Restarts the hand-off limit: other processes have a chance to acquire the lock.
    pub(super) const fn reset_hand_offs(&mut self) {
        (self.hand_offs_since, self.hand_offs) = (None, 0);
    }

    /// Starts the backoff of the pause in which other processes may acquire the lock.
    ///
    /// The server does not show polling clients, so only a pause can find them. It is fair if it is
    /// as long as theirs: up to one poll interval, if another process contended for the lock.
    /// Without contention it is lost time. So each pause halves the bound of the next one, down to
    /// a [`POLL_ALIGNMENT`]th of the interval.
    pub(super) fn begin_to_yield(&mut self, random: &mut fastrand::Rng) {
        if let Some(next) = self.queue.front() {
            let first = next.interval / self.yield_divisor;
            let backoff = Backoff::starting_at(first, next.interval, random.fork());
            self.backoff = Some(backoff);
            self.yield_divisor = self.yield_divisor.saturating_mul(2).min(POLL_ALIGNMENT);
        }
    }

    /// Records that another session holds the lock.
    pub(super) const fn record_outside_contention(&mut self) {
        self.yield_divisor = 1;
    }

    /// Returns whether the first waiter may be granted the lock as `session` holds it.
    pub(super) fn can_grant_next(
        &self,
        session: SessionId,
        held: LockMode,
        options: &LockManagerOptions,
        now: Instant,
    ) -> bool {
        // An in-process lock excludes no other process, so there is none to release it for.
        let must_release =
            session != SessionId::IN_PROCESS && self.hand_off_limit_reached(options, now);
        self.queue.front().is_some_and(|next| {
            let alone = self.holders.is_empty();
            // Another mode needs a release and an acquire, because the session holds one mode.
            next.mode == held && (alone || held == LockMode::Shared) && !must_release
        })
    }

    /// Returns the time of the next poll: after the backoff of the first waiter, at most its
    /// interval.
    ///
    /// Times are aligned relative to `epoch`, so that keys with the same interval are polled in one
    /// statement. Each lock manager has its own epoch, so that processes do not poll together.
    pub(super) fn next_poll_at(
        &mut self,
        epoch: Instant,
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Instant {
        let front = self.queue.front();
        let interval = front.map_or(Duration::ZERO, |next| next.interval);
        // A backoff with another maximum belongs to a waiter that has left.
        let backoff = self.backoff.take();
        let backoff = backoff.filter(|backoff| backoff.max() == interval);
        let backoff = backoff.unwrap_or_else(|| Backoff::new(interval, random.fork()));
        let pause = self.backoff.insert(backoff).next();
        let due = now.checked_add(pause).unwrap_or(now);
        let alignment = (interval / POLL_ALIGNMENT).as_nanos().max(1);
        let elapsed = due.saturating_duration_since(epoch).as_nanos();
        let later = u64::try_from(elapsed.next_multiple_of(alignment) - elapsed).unwrap_or(0);
        let later = Duration::from_nanos(later);
        if pause.saturating_add(later) <= interval {
            return due.checked_add(later).unwrap_or(due);
        }
        // The next aligned time exceeds the interval. The previous one is still in its upper half.
        let earlier = (interval / POLL_ALIGNMENT).saturating_sub(later);
        due.checked_sub(earlier).unwrap_or(due)
    }
}

#[cfg(test)]
mod tests;
