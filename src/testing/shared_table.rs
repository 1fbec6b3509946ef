//! Lock table shared by the threads and tasks of a test.
//!
//! # Implementation details
//!
//! A mutex around a [`Table`]. Each change wakes all waiters: threads through a condition variable,
//! tasks through their wakers. Each waiter then checks the table again. Waiters are few, so the
//! extra wake-ups cost little.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "_async")]
use std::task::Poll;
use std::time::{Duration, Instant};

pub(super) use super::table::{LockRequest, Owner};

use super::clock::Clock;
use super::fault::server_error;
use super::table::{LossHook, Table};
use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::session::{LockReply, SessionError};

/// Lock table of one test.
pub(super) struct SharedLockTable {
    table: Mutex<Table>,
    changed: Condvar,
    pub(super) clock: Clock,
}

impl SharedLockTable {
    pub(super) fn new(excludes: bool) -> Self {
        Self {
            table: Mutex::new(Table::new(excludes)),
            changed: Condvar::new(),
            clock: Clock::default(),
        }
    }

    /// Locks the table, for an operation that frees no lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        // No operation of the table panics half-way.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table, then wakes all waiters.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.lock();
        let changed = change(&mut table);
        // Collected under the mutex and woken outside it: a woken task locks the table.
        let wakers = table.wakers();
        drop(table);
        self.changed.notify_all();
        wakers.into_iter().for_each(std::task::Waker::wake);
        changed
    }

    pub(super) fn try_acquire(&self, request: &LockRequest) -> Result<bool, SessionError> {
        // A change also without an error: with an injected fault, the grant ends the session, which
        // frees its other locks.
        self.change(|table| table.try_acquire(request))
    }

    pub(super) fn release(&self, request: &LockRequest) -> Result<LockReply, SessionError> {
        self.change(|table| table.release(request))
    }

    pub(super) fn on_grant_dropped(&self, request: &LockRequest) {
        self.change(|table| table.on_grant_dropped(request));
    }

    pub(super) fn not_released(&self, request: &LockRequest, kind: LockErrorKind) {
        self.change(|table| table.not_released(request, kind));
    }

    pub(super) fn terminate_holders(&self, key: &LockKey) -> usize {
        self.end_sessions(|table| table.terminate_holders(key))
    }

    /// Ends a session, which loses all its locks.
    pub(super) fn end_session(&self, owner: Owner) {
        self.end_sessions(|table| table.end_session(owner));
    }

    fn end_sessions(&self, end: impl FnOnce(&mut Table) -> (usize, Vec<LossHook>)) -> usize {
        let (lost, hooks) = self.change(end);
        // Outside the mutex: a hook wakes a holder, which may release its lock.
        hooks.into_iter().for_each(|hook| hook());
        lost
    }

    /// Runs the hook when the lock is lost.
    #[cfg(feature = "lock-manager")]
    pub(super) fn on_lost(&self, request: &LockRequest, hook: LossHook) {
        let lost = self.lock().set_loss_hook(request.number, hook);
        if let Some(hook) = lost {
            hook();
        }
    }

    /// Pauses the clock. Waiters in the queue then reach their limits by it.
    pub(super) fn pause_clock(&self) {
        self.clock.pause();
        self.change(|_| ());
    }

    pub(super) fn release_other_session(&self, number: i32) {
        self.change(|table| table.remove_other_session(number));
    }

    /// Waits in the queue and blocks this thread.
    pub(super) fn wait(
        &self,
        request: &LockRequest,
        limit: Option<Duration>,
    ) -> Result<(), SessionError> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        // Declared before the guard of the table, and so dropped after it: the drop of the slot
        // locks the table.
        let _slot = self.enqueue_guarded(request)?;
        let mut table = self.lock();
        while !table.try_grant_queued(request, None)? {
            if limit.is_some_and(|limit| self.clock.advance(limit)) {
                return Err(timed_out());
            }
            table = match deadline {
                None => self
                    .changed
                    .wait(table)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let remaining = deadline.saturating_duration_since(Instant::now());
                    if remaining.is_zero() {
                        return Err(timed_out());
                    }
                    let waited = self.changed.wait_timeout(table, remaining);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Ok(())
    }

    /// Waits in the queue and suspends this task. The session's timer measures the limit.
    #[cfg(feature = "_async")]
    pub(super) async fn wait_async<S: crate::session::AsyncLockSession>(
        &self,
        request: &LockRequest,
        limit: Option<Duration>,
        session: &mut S,
    ) -> Result<(), SessionError> {
        use std::pin::pin;

        use crate::session::yield_now;

        let _slot = self.enqueue_guarded(request)?;
        let mut limit = pin!(async {
            let Some(limit) = limit else {
                return std::future::pending().await;
            };
            let deadline = self.clock.now().checked_add(limit);
            if !self.clock.is_paused() {
                let mut sleep = pin!(session.session_sleep(limit));
                // A pause of the clock wakes the waiter.
                std::future::poll_fn(|context| {
                    if self.clock.is_paused() {
                        Poll::Ready(())
                    } else {
                        sleep.as_mut().poll(context)
                    }
                })
                .await;
            }
            // As a call that polls: other tasks run, which may release the lock or advance the
            // clock. On a running clock, the limit has passed, or the machine waits for its rest.
            for _ in 0..1_000 {
                if !self.clock.advance(limit / 1_000) {
                    break;
                }
                yield_now().await;
                if deadline.is_some_and(|deadline| self.clock.now() >= deadline) {
                    break;
                }
            }
        });
        std::future::poll_fn(|context| {
            let mut table = self.lock();
            let granted = table.try_grant_queued(request, Some(context.waker()));
            drop(table);
            match granted {
                Ok(true) => Poll::Ready(Ok(())),
                Ok(false) => limit.as_mut().poll(context).map(|()| Err(timed_out())),
                Err(ended) => Poll::Ready(Err(ended)),
            }
        })
        .await
    }

    fn enqueue_guarded<'w>(
        &'w self,
        request: &'w LockRequest,
    ) -> Result<QueueSlot<'w>, SessionError> {
        self.lock().enqueue(request)?;
        Ok(QueueSlot {
            table: self,
            request,
        })
    }
}

/// Slot in the wait queue, removed when the wait ends, fails or is dropped.
struct QueueSlot<'w> {
    table: &'w SharedLockTable,
    request: &'w LockRequest,
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.table
            .change(|table| table.remove_from_queue(self.request));
    }
}

/// Returns the error of a server whose `lock_timeout` passed, so that the clean-up of the protocol
/// runs.
fn timed_out() -> SessionError {
    server_error("55P03", "the limit of the wait passed")
}
