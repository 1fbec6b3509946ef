//! The wait queues.

use advisory_locking::{LockScope, RawLockKey};

use super::server::{Code, Lock, Pid, Requested, Server, Ticket, Waiter, conflict};

impl Server {
    /// Enqueues a wait. A session that holds the key in a mode for which a waiter waits is inserted
    /// before that waiter.
    pub(super) fn enqueue(
        &mut self,
        pid: Pid,
        lock: Lock,
        scope: LockScope,
    ) -> Result<Requested, Code> {
        let mut ahead = Vec::new();
        let mut place = None;
        let queue: Vec<_> = self.queue(lock.key).copied().collect();
        for (index, waiter) in queue.into_iter().enumerate() {
            if self.sessions[&pid].conflicts(waiter.lock) {
                if self.sessions[&waiter.pid].conflicts(lock) {
                    return Err(self.fail(pid, "40P01"));
                }
                place = Some(index);
                break;
            }
            ahead.push(waiter.lock.mode);
        }
        let passes = !ahead.iter().any(|mode| conflict(*mode, lock.mode));
        if place.is_some() && passes && !self.conflicts(pid, lock) {
            self.grant(pid, lock, scope);
            return Ok(Requested::Granted);
        }
        self.last_ticket += 1;
        let waiter = Waiter {
            ticket: self.last_ticket,
            pid,
            lock,
            scope,
        };
        let queue = self.queues.entry(lock.key).or_default();
        queue.insert(place.unwrap_or(queue.len()), waiter);
        Ok(Requested::Queued(waiter.ticket))
    }

    /// Takes the result of a wait; `None` while it lasts.
    pub fn ended(&mut self, ticket: Ticket) -> Option<Result<(), Code>> {
        self.ended.remove(&ticket)
    }

    /// The wait's `lock_timeout` has passed.
    pub fn expire(&mut self, ticket: Ticket) {
        self.end_wait(ticket, "55P03");
    }

    /// `pg_cancel_backend`.
    pub fn cancel(&mut self, pid: Pid) {
        if let Some(ticket) = self.ticket_of(pid) {
            self.end_wait(ticket, "57014");
        }
    }

    /// `pg_terminate_backend`. The client learns of it by its next statement.
    pub fn terminate(&mut self, pid: Pid) {
        if let Some(ticket) = self.ticket_of(pid) {
            self.end_wait(ticket, "57P01");
        }
        self.sessions.remove(&pid);
        self.wake();
    }

    pub fn terminate_others(&mut self, pid: Pid) {
        let others: Vec<_> = self
            .sessions
            .keys()
            .copied()
            .filter(|other| *other != pid)
            .collect();
        for other in others {
            self.terminate(other);
        }
    }

    pub(super) fn end_wait(&mut self, ticket: Ticket, code: Code) {
        if let Some(waiter) = self.waiter(ticket) {
            self.leave_queue(ticket);
            let code = self.fail(waiter.pid, code);
            self.ended.insert(ticket, Err(code));
            self.wake();
        }
    }

    /// Grants waits in the order of the queue. A wait does not overtake one that it conflicts with.
    pub(super) fn wake(&mut self) {
        for (key, queue) in std::mem::take(&mut self.queues) {
            let mut left: Vec<Waiter> = Vec::new();
            for waiter in queue {
                let passes = !left
                    .iter()
                    .any(|ahead| conflict(ahead.lock.mode, waiter.lock.mode));
                if passes && !self.conflicts(waiter.pid, waiter.lock) {
                    self.grant(waiter.pid, waiter.lock, waiter.scope);
                    self.ended.insert(waiter.ticket, Ok(()));
                } else {
                    left.push(waiter);
                }
            }
            if !left.is_empty() {
                self.queues.insert(key, left);
            }
        }
    }

    pub(super) fn queue(&self, key: RawLockKey) -> impl Iterator<Item = &Waiter> {
        self.queues.get(&key).into_iter().flatten()
    }

    pub(super) fn waiter(&self, ticket: Ticket) -> Option<Waiter> {
        let mut waiters = self.queues.values().flatten();
        waiters.find(|waiter| waiter.ticket == ticket).copied()
    }

    fn ticket_of(&self, pid: Pid) -> Option<Ticket> {
        let mut waiters = self.queues.values().flatten();
        waiters
            .find(|waiter| waiter.pid == pid)
            .map(|waiter| waiter.ticket)
    }

    fn leave_queue(&mut self, ticket: Ticket) {
        for queue in self.queues.values_mut() {
            queue.retain(|waiter| waiter.ticket != ticket);
        }
        self.queues.retain(|_, queue| !queue.is_empty());
    }
}
