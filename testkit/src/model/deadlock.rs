//! Deadlocks. A session looks for one after it has waited for `deadlock_timeout`, and is the victim
//! of the one that it finds.

use super::server::{Pid, Server, Ticket, Waiter, conflict};

/// A wait for a session that is ahead in the queue and waits too. Swapping the two may end a cycle.
#[derive(Clone, Copy, Debug)]
struct Soft {
    behind: Ticket,
    ahead: Ticket,
}

impl Server {
    /// Looks for a cycle through this wait. Ends the wait if the cycle cannot be undone by
    /// reordering a queue.
    pub fn check_deadlock(&mut self, ticket: Ticket) {
        let Some(waiter) = self.waiter(ticket) else {
            return;
        };
        let Some(cycle) = self.cycle(waiter.pid) else {
            return;
        };
        for soft in cycle {
            let before = self.queues.clone();
            self.overtake(soft);
            if self.cycle(waiter.pid).is_none() {
                self.wake();
                return;
            }
            self.queues = before;
        }
        self.end_wait(ticket, "40P01");
    }

    /// The soft edges of a cycle through this session.
    fn cycle(&self, start: Pid) -> Option<Vec<Soft>> {
        let mut path = Vec::new();
        self.reaches(start, start, &mut vec![start], &mut path)
            .then_some(path)
    }

    fn reaches(&self, from: Pid, goal: Pid, seen: &mut Vec<Pid>, path: &mut Vec<Soft>) -> bool {
        for (next, soft) in self.edges(from) {
            let known = path.len();
            path.extend(soft);
            if next == goal {
                return true;
            }
            if !seen.contains(&next) {
                seen.push(next);
                if self.reaches(next, goal, seen, path) {
                    return true;
                }
            }
            path.truncate(known);
        }
        false
    }

    /// The sessions that a session waits for: holders, and sessions ahead in the queue.
    fn edges(&self, pid: Pid) -> Vec<(Pid, Option<Soft>)> {
        let mut edges = Vec::new();
        for queue in self.queues.values() {
            let Some(index) = queue.iter().position(|waiter| waiter.pid == pid) else {
                continue;
            };
            let Waiter { lock, ticket, .. } = queue[index];
            for (&other, session) in &self.sessions {
                if other != pid && session.conflicts(lock) {
                    edges.push((other, None));
                }
            }
            for ahead in &queue[..index] {
                if conflict(ahead.lock.mode, lock.mode) {
                    let soft = Soft {
                        behind: ticket,
                        ahead: ahead.ticket,
                    };
                    edges.push((ahead.pid, Some(soft)));
                }
            }
        }
        edges
    }

    fn overtake(&mut self, Soft { behind, ahead }: Soft) {
        for queue in self.queues.values_mut() {
            let place = |ticket| queue.iter().position(|waiter| waiter.ticket == ticket);
            if let (Some(from), Some(to)) = (place(behind), place(ahead)) {
                let waiter = queue.remove(from);
                queue.insert(to, waiter);
            }
        }
    }
}
