//! FIFO wait queue of one key.
//!
//! # Implementation details
//!
//! A double-ended queue in the order of the request ids, with two counters: requests that do not
//! wait, and requests that use [`WaitStrategy::Block`]. Most events of a key read the counters and
//! the first request only, so their cost does not grow with the length of the queue. The queue
//! itself wakes no waiter; the core responds to each request that it removes. A cancelled request
//! is found by binary search and may leave from any position.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::RequestId;
use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::options::{LockMode, WaitStrategy};

/// Behaviour of a request whose session ended before the reply, or whose session cannot be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AfterLoss {
    /// Waits for another session, until its deadline.
    Waits,
    /// Tries once more on another session. The ended session holds nothing.
    RetriesOnce,
    /// Fails, unless the session is older than the request.
    Fails,
}

/// Request of a waiter.
#[derive(Debug)]
pub(super) struct Request<W> {
    pub(super) id: RequestId,
    pub(super) key: LockKey,
    pub(super) mode: LockMode,
    pub(super) fenced: bool,
    /// Kind with which the request fails if the key is contended. `None`: it waits.
    pub(super) no_wait: Option<LockErrorKind>,
    /// End of the wait, for the key and for a session.
    pub(super) deadline: Option<Instant>,
    pub(super) after_loss: AfterLoss,
    pub(super) strategy: WaitStrategy,
    pub(super) interval: Duration,
    /// Time of the request.
    pub(super) since: Instant,
    /// The driver was told that the request waits.
    pub(super) is_waiting: bool,
    pub(super) waiter: W,
}

impl<W> Request<W> {
    /// Returns whether the request waits, and waits in the server's queue.
    pub(super) fn blocks(&self) -> bool {
        self.no_wait.is_none() && self.strategy == WaitStrategy::Block
    }
}

/// FIFO of requests, with counters.
#[derive(Debug)]
pub(super) struct WaitQueue<W> {
    /// In ascending order of ids.
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

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn front(&self) -> Option<&Request<W>> {
        self.requests.front()
    }

    /// Returns the request with this id.
    pub(super) fn get(&self, id: RequestId) -> Option<&Request<W>> {
        self.requests.get(self.position(id)?)
    }

    fn position(&self, id: RequestId) -> Option<usize> {
        let found = self
            .requests
            .binary_search_by_key(&id, |request| request.id);
        found.ok()
    }

    /// Marks the requests that wait since the last call, and returns them. They are the last ones.
    pub(super) fn begin_to_wait(&mut self) -> impl Iterator<Item = RequestId> + '_ {
        let requests = self.requests.iter_mut().rev();
        requests.map_while(|request| {
            let is_new = !std::mem::replace(&mut request.is_waiting, true);
            is_new.then_some(request.id)
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request<W>> {
        self.requests.iter()
    }

    /// Returns whether a request uses [`WaitStrategy::Block`].
    pub(super) const fn any_blocks(&self) -> bool {
        self.blocking > 0
    }

    /// Appends a request with a greater id than all others.
    pub(super) fn push(&mut self, request: Request<W>) {
        self.no_wait += usize::from(request.no_wait.is_some());
        self.blocking += usize::from(request.blocks());
        // Most keys have one waiter at a time, but a queue that grows starts with a capacity of
        // four.
        if self.requests.capacity() == 0 {
            self.requests.reserve_exact(1);
        }
        self.requests.push_back(request);
    }

    pub(super) fn pop(&mut self) -> Option<Request<W>> {
        let request = self.requests.pop_front();
        // Locks are held for longer than they are waited for, so an empty queue keeps no memory.
        if self.requests.is_empty() {
            self.requests = VecDeque::new();
        }
        request.inspect(|request| self.uncount(request.no_wait.is_some(), request.blocks()))
    }

    /// Removes a request and returns whether it was the first.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<(Request<W>, bool)> {
        self.remove_at(self.position(id)?)
    }

    /// Lets a request time out as soon as it is contended, and at this time.
    pub(super) fn stop_waiting(&mut self, id: RequestId, deadline: Instant) {
        let position = self.position(id);
        let request = position.and_then(|at| self.requests.get_mut(at));
        if let Some(request) = request {
            self.no_wait += usize::from(request.no_wait.is_none());
            self.blocking -= usize::from(request.blocks());
            request.no_wait = Some(LockErrorKind::TimedOut);
            request.deadline = Some(deadline);
        }
    }

    /// Removes the first request that uses [`WaitStrategy::Block`].
    pub(super) fn remove_blocking(&mut self) -> Option<Request<W>> {
        let position = self.requests.iter().position(Request::blocks)?;
        self.remove_at(position).map(|(request, _)| request)
    }

    fn remove_at(&mut self, position: usize) -> Option<(Request<W>, bool)> {
        let request = self.requests.remove(position)?;
        self.uncount(request.no_wait.is_some(), request.blocks());
        Some((request, position == 0))
    }

    /// Subtracts a removed request from the counters.
    const fn uncount(&mut self, no_wait: bool, blocks: bool) {
        self.no_wait = self.no_wait.saturating_sub(no_wait as usize);
        self.blocking = self.blocking.saturating_sub(blocks as usize);
    }

    /// Removes the requests that do not wait and match `filter`, which may change them.
    pub(super) fn drain_no_wait(
        &mut self,
        mut filter: impl FnMut(&mut Request<W>) -> bool,
    ) -> Vec<Request<W>> {
        // The usual case, which need not rebuild the queue.
        if self.no_wait == 0 {
            return Vec::new();
        }
        let mut drained = Vec::with_capacity(self.no_wait);
        // `push` counts again and keeps the order of the ids.
        for mut request in self.drain() {
            if request.no_wait.is_some() && filter(&mut request) {
                drained.push(request);
            } else {
                self.push(request);
            }
        }
        drained
    }

    /// Removes all requests.
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
            no_wait: None,
            deadline: None,
            after_loss: AfterLoss::Waits,
            strategy: WaitStrategy::Poll,
            interval: Duration::from_millis(100),
            since: Instant::now(),
            is_waiting: false,
            waiter: (),
        }
    }

    #[test]
    fn queue_capacity_is_one_then_zero_when_empty() {
        let mut queue = WaitQueue::default();
        queue.push(request(1));
        assert_eq!(queue.requests.capacity(), 1);
        queue.push(request(2));
        assert_eq!(queue.pop().map(|first| first.id), Some(RequestId(1)));
        assert_eq!(queue.pop().map(|second| second.id), Some(RequestId(2)));
        assert_eq!(queue.requests.capacity(), 0);
    }
}
