//! What becomes of a message on its way to the server, there, and on its way back.

use std::time::Duration;

use advisory_locking::session::ScriptKind;

use crate::line::{Answer, Done, Message, Waiting, execute};
use crate::model::Code;
use crate::world::State;

impl State {
    fn answer(&mut self, line: usize, message: u64, reply: Result<Option<Answer>, Code>) {
        let gone = !self.server.is_alive(self.lines[line].pid);
        self.trace(|| format!("line {line}: message {message}: {reply:?}"));
        self.lines[line].answered_by = self.lines[line].pid;
        self.lines[line].answer(message, reply.map_err(|code| (code, gone)));
        let client = self.lines[line].client;
        // Also if nobody waits for it: the client may wait for quiet.
        self.runnable[client] = true;
    }

    pub(crate) fn deliver(&mut self, number: usize) {
        let pid = self.lines[number].pid;
        let Some((message, sent)) = self.lines[number].inbox.pop_front() else {
            return;
        };
        self.trace(|| format!("line {number}: message {message}: {sent:?}"));
        if !self.server.is_alive(pid) {
            return self.answer(number, message, Err("08006"));
        }
        // An end is not a request that could fail; what nobody waits for is sent so often that it goes through.
        let may_fail = !matches!(sent, Message::End)
            && !matches!(&sent, Message::Script(batch) if matches!(batch.kind(), ScriptKind::ReleaseOrTerminate { .. }));
        let fault = if may_fail {
            self.rng.u8(..120)
        } else {
            u8::MAX
        };
        let code = self.code();
        if fault == 0 {
            self.met.refusals += 1;
            let code = self.server.fail(pid, code);
            self.after_failure(number, &sent);
            return self.answer(number, message, Err(code));
        }
        let done = execute(&mut self.server, pid, &sent);
        let reply = match (fault, done) {
            (_, Ok(Done::Queued(ticket))) => {
                let limit = match &sent {
                    Message::Script(batch) => match batch.kind() {
                        ScriptKind::Wait { limit_ms, .. } if limit_ms > 0 => {
                            Some(u64::from(limit_ms.unsigned_abs()))
                        }
                        _ => None,
                    },
                    _ => None,
                };
                let Message::Script(batch) = sent else { return };
                self.lines[number].waiting = Some(Waiting {
                    message,
                    batch,
                    ticket,
                    until: limit.map(|limit| self.elapsed + Duration::from_millis(limit)),
                });
                return;
            }
            (1, Ok(_)) => {
                self.met.done_but_reported += 1;
                Err(self.server.fail(pid, code))
            }
            (2, Ok(_)) => {
                self.met.replies_lost += 1;
                self.server.terminate(pid);
                Err("08006")
            }
            (_, Ok(Done::Answered(answer))) => Ok(Some(answer)),
            (_, Ok(Done::Ran)) => Ok(None),
            (_, Err(code)) => Err(code),
        };
        if reply.is_err() {
            self.after_failure(number, &sent);
        }
        self.answer(number, message, reply);
    }

    /// A client whose outermost `BEGIN` or `COMMIT` has failed makes sure that there is no transaction.
    fn after_failure(&mut self, number: usize, sent: &Message) {
        if matches!(sent, Message::Begin(0) | Message::Commit(0)) {
            let _ = self.server.rollback(self.lines[number].pid);
        }
    }

    fn code(&mut self) -> Code {
        ["40P01", "53200", "55P03", "57014", "42501"][self.rng.usize(..5)]
    }

    /// A wait may have been granted, may have reached its limit or be in a deadlock, or go on.
    pub(crate) fn look(&mut self, number: usize) {
        let Some(Waiting {
            message,
            batch,
            ticket,
            until,
        }) = self.lines[number].waiting
        else {
            return;
        };
        let pid = self.lines[number].pid;
        let late = until.is_some_and(|until| until <= self.elapsed);
        let mut ended = self.server.ended(ticket);
        if ended.is_none() && late {
            self.met.expired += 1;
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
        self.lines[number].waiting = None;
        // The grant and its limit, a cancel, or the search for deadlocks, coincide.
        let coincides = late || self.rng.u8(..16) == 0;
        let reply = match ended {
            Ok(()) if coincides && self.rng.bool() => {
                self.met.granted_but_reported += 1;
                let code = ["55P03", "55P03", "57014", "40P01"][self.rng.usize(..4)];
                Err(self.server.fail(pid, code))
            }
            Ok(()) => self.server.finish_batch(pid, &batch).map(|()| None),
            Err(code) => Err(code),
        };
        self.answer(number, message, reply);
    }
}
