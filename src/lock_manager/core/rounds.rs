//! What is sent to a session and what its answers mean.

use std::sync::Arc;
use std::time::Instant;

use super::entry::Stage;
use super::sessions::{Failure, State};
use super::{Command, Core, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, SessionError, TokenSource,
};

impl<W> Core<W> {
    /// Adds steps to what is asked next on a session; `alone`, each in a round of its own.
    pub(super) fn push(&mut self, id: SessionId, steps: &[LockOp], alone: bool, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session
                .outbox
                .extend(steps.iter().map(|step| (*step, alone)));
            self.flush(id, now);
        }
    }

    /// As [`confirm`](Self::confirm), with a round that is about to be asked for.
    pub(super) fn confirm_with_next(&mut self, id: SessionId, releaser: Option<W>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.confirms.extend(releaser);
        }
    }

    /// Tells a releaser after the next answer that the session was alive until then: what it gave back is still held, for another.
    pub(super) fn confirm(&mut self, id: SessionId, releaser: Option<W>, now: Instant) {
        let Some(releaser) = releaser else { return };
        if id == SessionId::PROCESS {
            self.reply(Some(releaser), Ok(()));
        } else if let Some(session) = self.sessions.get_mut(&id) {
            session.confirms.push(releaser);
            self.flush(id, now);
        } else {
            self.reply(Some(releaser), Err(LockErrorKind::Lost));
        }
    }

    /// What is asked and given back meanwhile goes together.
    pub(crate) fn together<T>(&mut self, now: Instant, act: impl FnOnce(&mut Self) -> T) -> T {
        self.gathering = true;
        let value = act(self);
        self.gathering = false;
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.flush(session, now);
        }
        value
    }

    /// Sends what there is to send, if the session is idle.
    pub(super) fn flush(&mut self, id: SessionId, now: Instant) {
        let most = self.settings.round;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let idle = matches!(session.state, State::Idle) && !self.gathering;
        if !idle || (session.outbox.is_empty() && session.confirms.is_empty()) {
            return;
        }
        let mut ahead = session.outbox.iter().take(most);
        let count = match ahead.position(|(_, alone)| *alone) {
            Some(0) => 1,
            Some(place) => place,
            None => session.outbox.len().min(most),
        };
        let steps = session.outbox.drain(..count);
        let steps = steps.map(|(step, _)| step).collect();
        let confirming = std::mem::take(&mut session.confirms);
        self.send(id, steps, confirming, now);
    }

    /// Asks whether the session is alive.
    pub(super) fn ping(&mut self, id: SessionId, now: Instant) {
        self.send(id, Arc::default(), Vec::new(), now);
    }

    fn send(&mut self, id: SessionId, steps: Arc<[LockOp]>, confirming: Vec<W>, now: Instant) {
        // What asks the sequence fails with it, so it is asked for tokens only.
        let draws = |step: &LockOp| {
            matches!(
                step.kind(),
                LockOpKind::IssueToken | LockOpKind::Acquire { with_token: true }
            )
        };
        let tokens = if steps.iter().any(draws) {
            self.settings.tokens.clone()
        } else {
            TokenSource::TransactionId
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            let round = LockBatch::new(BatchMode::Execute, session.pid, Arc::clone(&steps), tokens);
            session.state = State::Serving { steps, confirming };
            session.since = now;
            self.commands.push(Command::Send { session: id, round });
        }
    }

    /// A round was answered.
    pub(crate) fn answered(
        &mut self,
        id: SessionId,
        answer: Result<BatchReply, SessionError>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let row = match answer {
            Ok(row) if row.pid == session.pid => Ok(row),
            Ok(_) => return self.lose(id, LockErrorKind::SessionChanged, now),
            Err(error) if error.is_disconnected() => {
                return self.lose(id, LockErrorKind::Lost, now);
            }
            Err(error) => Err(Failure::of(&error)),
        };
        session.since = now;
        match (std::mem::replace(&mut session.state, State::Digesting), row) {
            (State::Serving { steps, confirming }, Ok(row)) => {
                for waiter in confirming {
                    self.reply(Some(waiter), Ok(()));
                }
                self.served(id, &steps, row, now);
            }
            (State::Serving { steps, confirming }, Err(failure)) => {
                // Some clients do not show whether the server has said so: the next answer tells whether the session lives.
                session.confirms.extend(confirming);
                self.undo(id, steps, failure, now);
            }
            (State::Undoing { steps, error }, Ok(_)) => self.undone(id, &steps, &error, now),
            (State::Undoing { .. }, Err(_)) => return self.lose(id, LockErrorKind::Lost, now),
            // Nothing was asked.
            (State::Opening | State::Idle | State::Digesting | State::Waiting { .. }, _) => {
                return self.lose(id, LockErrorKind::Lost, now);
            }
        }
        self.rest(id, now);
    }

    /// A session has nothing in flight: it sends what has gathered, or is given back if it was for one key that is gone.
    pub(super) fn rest(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if !matches!(session.state, State::Digesting) {
            return;
        }
        session.state = State::Idle;
        let unused = session.own.is_some_and(|key| {
            let stage = self.keys.get(&key).map(|entry| &entry.stage);
            stage.and_then(Stage::session) != Some(id)
        });
        if unused && session.outbox.is_empty() && session.confirms.is_empty() {
            self.close_session(id);
        } else {
            self.flush(id, now);
        }
        self.finish_closing();
    }

    fn served(&mut self, id: SessionId, steps: &[LockOp], row: BatchReply, now: Instant) {
        let answers = row.answers.unwrap_or_default();
        if answers.len() != steps.len() {
            return self.lose(id, LockErrorKind::SessionChanged, now);
        }
        let unfit = row.token == Some(0);
        for (step, answer) in steps.iter().zip(answers) {
            let key = step.key();
            match (step.kind(), answer) {
                (LockOpKind::Acquire { with_token }, Some(number)) => {
                    let token = with_token.then_some(self.token(number, row.token));
                    self.taken(key, id, step.mode(), token, now);
                }
                (LockOpKind::Acquire { with_token: true }, None) if unfit => self.unfit(key, now),
                (LockOpKind::Acquire { .. }, None) => self.refused(key, id, step.mode(), now),
                (LockOpKind::Release, answer) => self.left(key, answer.is_some(), now),
                (LockOpKind::IssueToken, Some(number)) => {
                    let token = self.token(number, row.token);
                    self.drawn(key, Some(token), now);
                }
                (LockOpKind::IssueToken, None) => self.unfit(key, now),
            }
        }
    }

    /// The token of a step: the number it answered, from a sequence; else the transaction's id.
    fn token(&self, number: i64, transaction: Option<i64>) -> i64 {
        match self.settings.tokens {
            TokenSource::Sequence(_) => number,
            TokenSource::TransactionId => transaction.unwrap_or(number),
        }
    }

    /// The token is there for the first in the queue who wants one.
    fn drawn(&mut self, key: RawLockKey, token: Option<i64>, now: Instant) {
        if let Some(entry) = self.keys.get_mut(&key) {
            if let Stage::Drawing { session, mode } = entry.stage {
                entry.stage = Stage::Held { session, mode };
                self.settle(key, token, None, now);
            }
        }
    }
}
