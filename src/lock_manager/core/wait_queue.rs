//! Those who wait for one key, in the order in which they came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::RequestId;
use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::options::{LockMode, OnMissingLock, WaitStrategy};

/// How long somebody waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deadline {
    /// Until the key was asked for no_wait; then it is refused with this kind.
    NoWait(LockErrorKind),
    At(Instant),
    Never,
}

/// Somebody who waits for a lock.
#[derive(Debug)]
pub(super) struct Request<W> {
    pub(super) id: RequestId,
    pub(super) key: LockKey,
    pub(super) mode: LockMode,
    pub(super) fenced: bool,
    pub(super) deadline: Deadline,
    pub(super) strategy: WaitStrategy,
    pub(super) interval: Duration,
    pub(super) on_missing_lock: OnMissingLock,
    pub(super) waiter: W,
}

impl<W> Request<W> {
    /// What somebody who does not wait is refused with.
    pub(super) const fn no_wait_kind(&self) -> Option<LockErrorKind> {
        match self.deadline {
            Deadline::NoWait(kind) => Some(kind),
            Deadline::At(_) | Deadline::Never => None,
        }
    }

    fn blocks(&self) -> bool {
        self.strategy == WaitStrategy::Block
    }
}

/// The queue. It counts what is asked of it at every turn, which must not cost more the longer it is.
#[derive(Debug)]
pub(super) struct WaitQueue<W> {
    /// Their numbers grow.
    requests: VecDeque<Request<W>>,
    no_wait: usize,
    blocking: usize,
}

impl<W> Default for WaitQueue<W> {
    fn default() -> Self {
        Self {
            requests: VecDeque::new(),
            no_wait: 0,
            blocking: 0,
        }
    }
}

impl<W> WaitQueue<W> {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Request<W>> {
        self.requests.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request<W>> {
        self.requests.iter()
    }

    /// Whether anybody wants to wait on the server.
    pub(super) const fn any_blocks(&self) -> bool {
        self.blocking > 0
    }

    /// Puts somebody who came later than all others at the end.
    pub(super) fn push(&mut self, request: Request<W>) {
        self.no_wait += usize::from(request.no_wait_kind().is_some());
        self.blocking += usize::from(request.blocks());
        // Most keys have one who waits at a time, and a collection that grows begins with room for four.
        if self.requests.capacity() == 0 {
            self.requests.reserve_exact(1);
        }
        self.requests.push_back(request);
    }

    pub(super) fn pop(&mut self) -> Option<Request<W>> {
        let request = self.requests.pop_front();
        // A lock is held for longer than it is waited for: with nobody behind the holder there is no queue to keep.
        if self.requests.is_empty() {
            self.requests = VecDeque::new();
        }
        request.inspect(|request| self.uncount(request.no_wait_kind().is_some(), request.blocks()))
    }

    /// Takes one out, and says whether it was the first.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<(Request<W>, bool)> {
        let position = self
            .requests
            .binary_search_by_key(&id, |request| request.id);
        self.remove_at(position.ok()?)
    }

    /// Takes out the first of those who want to wait on the server.
    pub(super) fn remove_blocking(&mut self) -> Option<Request<W>> {
        let position = self.requests.iter().position(Request::blocks)?;
        self.remove_at(position).map(|(request, _)| request)
    }

    fn remove_at(&mut self, position: usize) -> Option<(Request<W>, bool)> {
        let request = self.requests.remove(position)?;
        self.uncount(request.no_wait_kind().is_some(), request.blocks());
        Some((request, position == 0))
    }

    const fn uncount(&mut self, no_wait: bool, blocks: bool) {
        self.no_wait = self.no_wait.saturating_sub(no_wait as usize);
        self.blocking = self.blocking.saturating_sub(blocks as usize);
    }

    /// Takes out all who do not wait.
    pub(super) fn drain_no_wait(&mut self) -> Vec<Request<W>> {
        // Nearly always there is nobody.
        if self.no_wait == 0 {
            return Vec::new();
        }
        let mut drained = Vec::with_capacity(self.no_wait);
        for request in self.drain() {
            if request.no_wait_kind().is_some() {
                drained.push(request);
            } else {
                self.push(request);
            }
        }
        drained
    }

    /// Takes out all.
    pub(super) fn drain(&mut self) -> VecDeque<Request<W>> {
        (self.no_wait, self.blocking) = (0, 0);
        std::mem::take(&mut self.requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64) -> Request<()> {
        Request {
            id: RequestId(id),
            key: LockKey::from(42),
            mode: LockMode::Exclusive,
            fenced: false,
            deadline: Deadline::Never,
            strategy: WaitStrategy::Poll,
            interval: Duration::from_millis(100),
            on_missing_lock: OnMissingLock::Warn,
            waiter: (),
        }
    }

    #[test]
    fn a_line_takes_no_more_room_than_those_who_wait() {
        let mut queue = WaitQueue::default();
        queue.push(request(1));
        assert_eq!(queue.requests.capacity(), 1);
        queue.push(request(2));
        assert_eq!(queue.pop().map(|first| first.id), Some(RequestId(1)));
        assert_eq!(queue.pop().map(|second| second.id), Some(RequestId(2)));
        assert_eq!(queue.requests.capacity(), 0);
    }
}
