//! What happens when time passes.

use std::time::Instant;

use super::entry::Stage;
use super::sessions::State;
use super::{Core, RequestId, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;

/// What is to happen at a certain time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Alarm {
    /// The limit of a request passes.
    Limit(RequestId, RawLockKey),
    /// A key is asked for again.
    Due(RawLockKey),
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
        self.together(now, |core| {
            for key in due {
                if let Some(entry) = core.keys.get_mut(&key) {
                    entry.due = None;
                    if matches!(entry.stage, Stage::Away) {
                        core.ask(key, now);
                    }
                }
            }
        });
    }

    fn give_up(&mut self, id: RequestId, key: RawLockKey, now: Instant) {
        let Some(request) = self.withdraw(id, key, now) else {
            return;
        };
        // A database that cannot be reached is the better reason.
        let unopened = self.unopened.as_ref().filter(|_| !self.is_connected());
        match unopened.map(|unopened| unopened.why.clone()) {
            Some(why) => {
                let error = LockError::new(LockErrorKind::Pool);
                let error = error.with_key(&request.key).with_context(why);
                self.refuse_with(request, error);
            }
            None => self.refuse(request, LockErrorKind::TimedOut),
        }
    }

    /// A session that is in its state since then will be looked after.
    pub(super) fn watch(&mut self, id: SessionId, since: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(
            &mut session.check,
            since.checked_add(self.settings.keep_alive),
        );
        if let Some(at) = before {
            self.alarms.remove(&(at, Alarm::Check(id)));
        }
        if let Some(at) = session.check {
            self.alarms.insert((at, Alarm::Check(id)));
        }
    }

    /// An idle session is asked whether it is alive; one that has not answered for too long is given up.
    fn check(&mut self, id: SessionId, now: Instant) {
        let waited_for = self.is_waited_for(id);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.check = None;
        let since = session.since;
        if now.saturating_duration_since(since) < self.settings.keep_alive {
            return self.watch(id, since);
        }
        match session.state {
            State::Idle => {
                self.ping(id, now);
                self.watch(id, now);
            }
            State::Serving { .. } | State::Undoing { .. } => {
                self.lose(id, LockErrorKind::Lost, now);
            }
            // Nobody waits for it any more, and it has not come back at its limit.
            State::Waiting { .. } if !waited_for => {
                self.abandon(id);
                self.finish_closing();
            }
            // It is looked after again when it is granted, or when nobody waits for it any more.
            State::Opening | State::Digesting | State::Waiting { .. } => {}
        }
    }

    fn is_waited_for(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .and_then(|session| session.own)
            .and_then(|key| self.keys.get(&key))
            .is_some_and(|entry| entry.stage.session() == Some(id))
    }
}
