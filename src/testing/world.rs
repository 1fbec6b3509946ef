//! The locks of one test: the table, and waiting for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) use super::table::{Owner, Wanted};

use super::event::{Event, not_granted};
use super::fault::{Fault, server_error};
use super::table::Table;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::protocol::Acquired;
use crate::session::{LockReply, SessionError};

/// The locks of one test, shared by its threads and tasks.
#[derive(Debug)]
pub(super) struct World {
    table: Mutex<Table>,
    changed: Condvar,
}

impl World {
    pub(super) fn new(excludes: bool) -> Self {
        Self {
            table: Mutex::new(Table::new(excludes)),
            changed: Condvar::new(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in the table panics half-way.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something after which others may go on.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table();
        let changed = change(&mut table);
        let wakers = table.wakers();
        drop(table);
        self.changed.notify_all();
        wakers.into_iter().for_each(std::task::Waker::wake);
        changed
    }

    pub(super) fn excludes(&self) -> bool {
        self.table().excludes()
    }

    pub(super) fn next_number(&self) -> i32 {
        self.table().next_number()
    }

    pub(super) fn try_acquire(&self, wanted: &Wanted) -> Result<bool, SessionError> {
        self.table().try_acquire(wanted)
    }

    pub(super) fn release(&self, wanted: &Wanted) -> Result<LockReply, SessionError> {
        self.change(|table| table.release(wanted))
    }

    pub(super) fn give_up(&self, wanted: &Wanted) {
        self.change(|table| table.give_up(wanted));
    }

    pub(super) fn not_released(&self, wanted: &Wanted, kind: LockErrorKind) {
        self.change(|table| table.not_released(wanted, kind));
    }

    pub(super) fn before_commit(&self, wanted: &Wanted) -> Result<(), SessionError> {
        self.table().before_commit(wanted)
    }

    pub(super) fn moved(&self, number: i32, owner: Owner) {
        self.table().moved(number, owner);
    }

    pub(super) fn fails_checkout(&self, key: &LockKey) -> Option<SessionError> {
        self.table().fails_checkout(key)
    }

    pub(super) fn ended(&self, wanted: &Wanted, outcome: &Result<Acquired, LockError>) {
        if let Some(what) = not_granted(outcome) {
            self.table().note(wanted, what);
        }
    }

    pub(super) fn plan(&self, key: LockKey, fault: Fault) {
        self.table().plan(key, fault);
    }

    pub(super) fn lose(&self, key: &LockKey) -> usize {
        self.change(|table| table.lose(key))
    }

    pub(super) fn hold_elsewhere(&self, key: LockKey, mode: LockMode) -> i32 {
        self.table().hold_elsewhere(key, mode)
    }

    pub(super) fn release_elsewhere(&self, number: i32) {
        self.change(|table| table.remove_elsewhere(number));
    }

    pub(super) fn is_held(&self, key: &LockKey) -> bool {
        self.table().is_held(key)
    }

    pub(super) fn refusals(&self, key: &LockKey) -> usize {
        self.table().refusals(key)
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.table().events().to_vec()
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        self.table().take_events()
    }

    /// Waits in the queue on this thread.
    pub(super) fn wait(
        &self,
        wanted: &Wanted,
        limit: Option<Duration>,
    ) -> Result<(), SessionError> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let _place = self.queue_up(wanted)?;
        let mut table = self.table();
        while !table.advance(wanted, None) {
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

    /// Waits in the queue in this task; the session's own timer keeps the limit.
    #[cfg(feature = "_async")]
    pub(super) async fn wait_async<S: crate::session::AsyncLockSession>(
        &self,
        wanted: &Wanted,
        limit: Option<Duration>,
        session: &mut S,
    ) -> Result<(), SessionError> {
        use std::pin::pin;
        use std::task::Poll;

        let _place = self.queue_up(wanted)?;
        let mut limit = pin!(async {
            match limit {
                Some(limit) => session.session_sleep(limit).await,
                None => std::future::pending().await,
            }
        });
        std::future::poll_fn(|context| {
            if self.table().advance(wanted, Some(context.waker())) {
                return Poll::Ready(Ok(()));
            }
            limit.as_mut().poll(context).map(|()| Err(timed_out()))
        })
        .await
    }

    fn queue_up<'w>(&'w self, wanted: &'w Wanted) -> Result<Place<'w>, SessionError> {
        self.table().enqueue(wanted)?;
        Ok(Place {
            world: self,
            wanted,
        })
    }
}

/// A place in the queue, left when the wait is over, has failed or is dropped.
struct Place<'w> {
    world: &'w World,
    wanted: &'w Wanted,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.world.change(|table| table.leave_queue(self.wanted));
    }
}

/// As a server reports the end of a wait; so the protocol's own clean-up runs.
fn timed_out() -> SessionError {
    server_error("55P03", "the limit of the wait passed")
}
