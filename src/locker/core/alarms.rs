//! What happens when time passes.

use std::time::Instant;

use super::sessions::State;
use super::{Core, RequestId, SessionId, Stage};
use crate::error::LockErrorKind;
use crate::key::KeySpace;

/// What is to happen at a certain time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Alarm {
    /// The limit of a request passes.
    Limit(RequestId, KeySpace),
    /// A key is asked for again.
    Due(KeySpace),
    /// A session is looked after.
    Check(SessionId),
}

impl<W> Core<W> {
    /// When [`tick`](Self::tick) has something to do, unless something else happens first.
    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        // What is due is gathered, so that it is asked for together.
        let mut due = Vec::new();
        while let Some((at, alarm)) = self.alarms.first().copied().filter(|(at, _)| *at <= now) {
            self.alarms.remove(&(at, alarm));
            match alarm {
                Alarm::Limit(request, key) => self.give_up(request, key, now),
                Alarm::Due(key) => due.push(key),
                Alarm::Check(session) => self.check(session, now),
            }
        }
        for key in due {
            if let Some(entry) = self.keys.get_mut(&key) {
                entry.due = None;
                if matches!(entry.stage, Stage::Away) {
                    self.ask(key, now);
                }
            }
        }
    }

    fn give_up(&mut self, id: RequestId, key: KeySpace, now: Instant) {
        let Some(request) = self.withdraw(id, key, false, now) else {
            return;
        };
        // A database that cannot be reached is the better reason.
        match &self.unopened {
            Some(unopened) => {
                let why = unopened.why.clone();
                let error = crate::error::LockError::new(LockErrorKind::Pool);
                let error = error.with_key(&request.key).because(why);
                self.refuse_with(request, error);
            }
            None => self.refuse(request, LockErrorKind::TimedOut),
        }
    }

    /// A session will be looked after.
    pub(super) fn watch(&mut self, id: SessionId, now: Instant) {
        if let Some(at) = now.checked_add(self.settings.keep_alive) {
            self.alarms.insert((at, Alarm::Check(id)));
        }
    }

    /// An idle session is asked whether it is alive; one that has not answered for too long is given up.
    fn check(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let rested = now.saturating_duration_since(session.since) >= self.settings.keep_alive;
        match session.state {
            State::Idle if rested => self.ping(id, now),
            State::Serving { .. } | State::Undoing { .. } if rested => {
                return self.lose(id, LockErrorKind::Lost, now);
            }
            // Nobody waits for it any more, and it has not come back at its limit.
            State::Waiting if rested && !self.is_waited_for(id) => return self.abandon(id),
            State::Opening
            | State::Idle
            | State::Serving { .. }
            | State::Undoing { .. }
            | State::Digesting
            | State::Waiting => {}
        }
        let since = self.sessions.get(&id).map_or(now, |session| session.since);
        self.watch(
            id,
            since.max(now.checked_sub(self.settings.keep_alive / 2).unwrap_or(now)),
        );
    }

    fn is_waited_for(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .and_then(|session| session.own)
            .and_then(|key| self.keys.get(&key))
            .is_some_and(|entry| entry.stage.session() == Some(id))
    }
}
