//! What is sent to a session and what its answers mean.

use std::time::Instant;

use super::sessions::{Failure, State};
use super::{Command, Core, SessionId, Stage};
use crate::error::{LockError, LockErrorKind};
use crate::key::KeySpace;
use crate::session::{Round, RoundKind, RoundRow, RoundStep, SessionError, StepKind};

impl<W> Core<W> {
    /// Adds a step to what is asked next on a session; `alone` in a round of its own.
    pub(super) fn push(&mut self, id: SessionId, step: RoundStep, alone: bool, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outbox.push((step, alone));
            self.flush(id, now);
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

    /// Sends what there is to send, if the session is idle.
    pub(super) fn flush(&mut self, id: SessionId, now: Instant) {
        let most = self.settings.round;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let idle = matches!(session.state, State::Idle);
        if !idle || (session.outbox.is_empty() && session.confirms.is_empty()) {
            return;
        }
        let alone = session.outbox.iter().position(|(_, alone)| *alone);
        let count = match alone {
            Some(0) => 1,
            Some(place) => place,
            None => session.outbox.len(),
        };
        let steps = session.outbox.drain(..count.min(most));
        let steps: Vec<_> = steps.map(|(step, _)| step).collect();
        let confirming = std::mem::take(&mut session.confirms);
        self.send(id, steps, confirming, now);
    }

    /// Asks whether the session is alive.
    pub(super) fn ping(&mut self, id: SessionId, now: Instant) {
        self.send(id, Vec::new(), Vec::new(), now);
    }

    fn send(&mut self, id: SessionId, steps: Vec<RoundStep>, confirming: Vec<W>, now: Instant) {
        let tokens = self.settings.tokens.clone();
        if let Some(session) = self.sessions.get_mut(&id) {
            let round = Round::new(RoundKind::Serve, session.pid, steps.clone(), tokens);
            session.state = State::Serving { steps, confirming };
            session.since = now;
            self.commands.push(Command::Send { session: id, round });
        }
    }

    /// A round was answered.
    pub(crate) fn answered(
        &mut self,
        id: SessionId,
        answer: Result<RoundRow, SessionError>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let row = match answer {
            Ok(row) if row.pid == session.pid => Ok(row),
            Ok(_) => return self.lose(id, LockErrorKind::PoolerInBetween, now),
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
                self.served(id, steps, row, now);
            }
            (State::Serving { steps, confirming }, Err(failure)) => {
                // An error of the server's is an answer: the session lives.
                for waiter in confirming {
                    self.reply(Some(waiter), Ok(()));
                }
                self.undo(id, steps, failure, now);
            }
            (State::Undoing { steps, error }, Ok(_)) => self.undone(id, steps, error, now),
            (State::Undoing { .. }, Err(_)) => return self.lose(id, LockErrorKind::Lost, now),
            // Unreachable: nothing was asked.
            (State::Opening | State::Idle | State::Digesting | State::Waiting, _) => {
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

    fn served(&mut self, id: SessionId, steps: Vec<RoundStep>, row: RoundRow, now: Instant) {
        let answers = row.answers.unwrap_or_default();
        if answers.len() != steps.len() {
            return self.lose(id, LockErrorKind::PoolerInBetween, now);
        }
        let unfit = row.token == Some(0);
        for (step, answer) in steps.into_iter().zip(answers) {
            let key = step.key();
            match (step.kind(), answer) {
                (StepKind::Take { fenced }, Some(number)) => {
                    let token = fenced.then_some(self.token(number, row.token));
                    self.taken(key, id, step.mode(), token, now);
                }
                (StepKind::Take { fenced: true }, None) if unfit => self.unfit(key, now),
                (StepKind::Take { .. }, None) => self.refused(key, id, now),
                (StepKind::GiveBack, answer) => self.left(key, answer.is_some(), now),
                (StepKind::Draw, Some(number)) => {
                    let token = self.token(number, row.token);
                    self.drawn(key, Some(token), now);
                }
                (StepKind::Draw, None) => self.unfit(key, now),
            }
        }
    }

    /// The token of a step: the number it answered, from a sequence; else the transaction's id.
    fn token(&self, number: i64, transaction: Option<i64>) -> i64 {
        match self.settings.tokens {
            crate::session::TokenSource::Sequence(_) => number,
            crate::session::TokenSource::TransactionId => transaction.unwrap_or(number),
        }
    }

    /// The token is there for the first in the queue who wants one.
    fn drawn(&mut self, key: KeySpace, token: Option<i64>, now: Instant) {
        if let Some(entry) = self.keys.get_mut(&key) {
            if let Stage::Drawing { session, mode } = entry.stage {
                entry.stage = Stage::Held { session, mode };
                self.settle(key, token, None, now);
            }
        }
    }

    /// Tokens cannot be drawn from that sequence: whoever is first is told.
    fn unfit(&mut self, key: KeySpace, now: Instant) {
        let failure = Failure {
            kind: LockErrorKind::InvalidOptions,
            why: "fencing tokens need a sequence that counts up, with CACHE 1 and NO CYCLE"
                .to_owned(),
        };
        self.fail_first(key, &failure, now);
    }

    /// The first in the queue is told of an error, and the key goes on without it.
    fn fail_first(&mut self, key: KeySpace, failure: &Failure, now: Instant) {
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        entry.alone = false;
        let first = entry.queue.pop_front();
        match entry.stage {
            Stage::Asking { .. } => entry.stage = Stage::Away,
            Stage::Drawing { session, mode } => entry.stage = Stage::Held { session, mode },
            Stage::Away | Stage::Waiting { .. } | Stage::Held { .. } | Stage::Leaving { .. } => {}
        }
        if let Some(request) = first {
            let error = LockError::new(failure.kind).with_key(&request.key);
            let error = error.because(failure.why.clone());
            self.refuse_with(request, error);
        }
        match self.keys.get(&key).map(|entry| &entry.stage) {
            Some(Stage::Held { .. }) => self.settle(key, None, None, now),
            Some(Stage::Away) => self.ask(key, now),
            Some(_) | None => {}
        }
    }

    /// A round failed on a session that lives, and nobody knows how far it got. Session-level locks outlive an error, so what it took is
    /// given back. No lock is taken twice on a session, so whatever is shown there is of this round, or was to be given back.
    fn undo(&mut self, id: SessionId, steps: Vec<RoundStep>, error: Failure, now: Instant) {
        let mut undone: Vec<RoundStep> = Vec::new();
        let taken_or_left = steps.iter().filter(|step| step.kind() != StepKind::Draw);
        for step in taken_or_left {
            let twice = undone
                .iter()
                .rev()
                .take(1)
                .any(|other| other.key() == step.key() && other.mode() == step.mode());
            if !twice {
                undone.push(*step);
            }
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let tokens = self.settings.tokens.clone();
        let round = Round::new(RoundKind::Undo, session.pid, undone, tokens);
        session.state = State::Undoing { steps, error };
        session.since = now;
        self.commands.push(Command::Send { session: id, round });
    }

    /// A failed round is undone. If it was of one step, whoever it was for is told; else each is asked again in a round of its own.
    fn undone(&mut self, id: SessionId, steps: Vec<RoundStep>, failure: Failure, now: Instant) {
        let alone = steps
            .iter()
            .filter(|step| step.kind() != StepKind::GiveBack)
            .count()
            == 1;
        for step in steps {
            let key = step.key();
            match step.kind() {
                StepKind::GiveBack => self.left(key, true, now),
                StepKind::Take { .. } | StepKind::Draw if alone => {
                    self.fail_first(key, &failure, now)
                }
                StepKind::Take { .. } => {
                    if let Some(entry) = self.keys.get_mut(&key) {
                        if matches!(entry.stage, Stage::Asking { .. }) {
                            entry.stage = Stage::Away;
                            entry.alone = true;
                            self.ask(key, now);
                        }
                    }
                }
                StepKind::Draw => self.push(id, step, true, now),
            }
        }
    }
}
