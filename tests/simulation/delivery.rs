//! Delivery of messages and replies, with their faults.

use std::time::Duration;

use advisory_locking::session::Row;
use advisory_locking::session::Script;

use crate::link::{Done, Message, Waiting, execute};
use crate::simulation::State;
use testkit::model::Code;

impl State {
    fn answer(&mut self, link: usize, message: u64, reply: Result<Option<Row>, Code>) {
        let gone = !self.server.is_alive(self.links[link].pid);
        self.trace(|| format!("link {link}: message {message}: {reply:?}"));
        self.links[link].answered_by = self.links[link].pid;
        self.links[link].answer(message, reply.map_err(|code| (code, gone)));
        let client = self.links[link].client;
        // Also without a waiting request: the client may wait for the link to become quiet.
        self.runnable[client] = true;
    }

    pub(crate) fn deliver(&mut self, number: usize) {
        let pid = self.links[number].pid;
        let Some((message, sent)) = self.links[number].inbox.pop_front() else {
            return;
        };
        self.trace(|| format!("link {number}: message {message}: {sent:?}"));
        if !self.server.is_alive(pid) {
            return self.answer(number, message, Err("08006"));
        }
        // The end of a session cannot fail. A detached release is sent twice, so it is not failed
        // here.
        let may_fail = !matches!(sent, Message::End)
            && !matches!(sent, Message::Script(Script::ReleaseOrTerminate { .. }));
        let fault = if may_fail {
            self.rng.u8(..120)
        } else {
            u8::MAX
        };
        let code = self.code();
        if fault == 0 {
            self.coverage.requests_rejected += 1;
            let code = self.server.fail(pid, code);
            self.after_failure(number, &sent);
            return self.answer(number, message, Err(code));
        }
        let done = execute(&mut self.server, pid, &sent);
        let reply = match (fault, done) {
            (_, Ok(Done::Queued(ticket))) => {
                let limit = match &sent {
                    Message::Script(Script::Wait { limit_ms, .. }) if *limit_ms > 0 => {
                        Some(u64::from(limit_ms.unsigned_abs()))
                    }
                    _ => None,
                };
                let Message::Script(script) = sent else {
                    return;
                };
                self.links[number].waiting = Some(Waiting {
                    message,
                    script,
                    ticket,
                    until: limit.map(|limit| self.elapsed + Duration::from_millis(limit)),
                });
                return;
            }
            (1, Ok(_)) => {
                self.coverage.done_but_reported += 1;
                Err(self.server.fail(pid, code))
            }
            (2, Ok(_)) => {
                self.coverage.replies_lost += 1;
                self.server.terminate(pid);
                Err("08006")
            }
            (_, Ok(Done::Answered(row))) => Ok(Some(row)),
            (_, Ok(Done::Ran)) => Ok(None),
            (_, Err(code)) => Err(code),
        };
        if reply.is_err() {
            self.after_failure(number, &sent);
        }
        self.answer(number, message, reply);
    }

    /// Rolls back after a failed outermost `BEGIN` or `COMMIT`, as client libraries do.
    fn after_failure(&mut self, number: usize, sent: &Message) {
        if matches!(sent, Message::Begin(0) | Message::Commit(0, _)) {
            let _ = self.server.rollback(self.links[number].pid);
        }
    }

    fn code(&mut self) -> Code {
        ["40P01", "53200", "55P03", "57014", "42501"][self.rng.usize(..5)]
    }

    /// Checks a wait: it was granted, has reached its limit, is in a deadlock, or continues.
    pub(crate) fn check_wait(&mut self, number: usize) {
        let Some(Waiting {
            message,
            script,
            ticket,
            until,
        }) = self.links[number].waiting
        else {
            return;
        };
        let pid = self.links[number].pid;
        let late = until.is_some_and(|until| until <= self.elapsed);
        let mut ended = self.server.ended(ticket);
        if ended.is_none() && late {
            self.coverage.expired += 1;
            self.server.expire(ticket);
            ended = self.server.ended(ticket);
        }
        if ended.is_none() && self.rng.u8(..4) == 0 {
            self.server.check_deadlock(ticket);
            ended = self.server.ended(ticket);
        }
        if ended.is_none() && !self.server.is_alive(pid) {
            ended = Some(Err("57P01"));
        }
        let Some(ended) = ended else { return };
        self.links[number].waiting = None;
        // The grant coincides with the limit, a cancel request or the deadlock check.
        let coincides = late || self.rng.u8(..16) == 0;
        let reply = match ended {
            Ok(()) if coincides && self.rng.bool() => {
                self.coverage.granted_but_reported += 1;
                let code = ["55P03", "55P03", "57014", "40P01"][self.rng.usize(..4)];
                Err(self.server.fail(pid, code))
            }
            Ok(()) => self.server.finish_script(pid, &script).map(|()| None),
            Err(code) => Err(code),
        };
        self.answer(number, message, reply);
    }
}
