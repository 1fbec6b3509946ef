//! What a user's call does: ask, wait for the answer, give back. Once for both lockers; a thread that calls waits by parking.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_channel::oneshot;

use super::core::{RequestId, SessionId};
use super::hub::{Answer, Held, Hub, Reception, Reply};
use super::loss_signal::LossSignal;
use crate::error::{LockError, LockErrorKind};
use crate::events;
use crate::key::{LockKey, RawLockKey};
use crate::options::LockScope;
use crate::options::{LockMode, LockOptions};

/// The locker's users; the last of them ends it.
#[derive(Debug)]
pub(super) struct Client {
    hub: Arc<Hub>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hub.act(|core, now| core.shut_down(now));
    }
}

impl Client {
    pub(super) const fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Asks for a lock and waits for the answer: `Err` with the kinds of the `try_*` methods among the others.
    ///
    /// Dropped at any point, the request leaves its queue, and what was granted is given back.
    pub(super) async fn acquire(
        &self,
        key: LockKey,
        options: LockOptions,
        fenced: bool,
    ) -> Result<Locked, LockError> {
        check(&options, &key)?;
        events::requested(&key, LockScope::Session);
        self.ask(key, &options, fenced).await
    }

    fn ask(&self, key: LockKey, options: &LockOptions, fenced: bool) -> Pending {
        let (reply, answer) = oneshot::channel();
        let asked = key.clone();
        let request = self.hub.act_and_help(options.waits(), |core, now| {
            core.request(asked, options, fenced, reply, now)
        });
        Pending {
            request: Some((request, key.raw())),
            reception: Reception(answer),
            hub: Arc::clone(&self.hub),
            key,
            mode: options.lock_mode(),
        }
    }

    /// Takes all the keys or none of them, each once, in the order of their numbers.
    ///
    /// All are asked for at once. Beyond the first that is refused nothing is kept while that one is waited for: whoever waits holds only
    /// smaller keys than the one it waits for, so nobody waits in a circle.
    pub(super) async fn acquire_all(
        &self,
        mut keys: Vec<LockKey>,
        options: LockOptions,
    ) -> Result<Vec<Locked>, LockError> {
        if let Some(first) = keys.first() {
            check(&options, first)?;
        }
        let began = Instant::now();
        keys.sort_by_key(LockKey::raw);
        keys.dedup_by_key(|key| key.raw());
        let once = LockOptions::no_wait()
            .mode(options.lock_mode())
            .on_missing_lock(options.missing_lock_policy());
        let mut locked: Vec<Locked> = Vec::with_capacity(keys.len());
        let error = loop {
            let missing = keys.get(locked.len()..).unwrap_or_default();
            if missing.is_empty() {
                return Ok(locked);
            }
            let refused = self
                .ask_for_all(missing, &once, &options, &mut locked)
                .await;
            let Some((key, error)) = refused else {
                continue;
            };
            let waits = error.kind() == LockErrorKind::HeldElsewhere;
            let Some(options) = options.after(began.elapsed()).filter(|_| waits) else {
                break error;
            };
            match self.ask(key, &options, false).await {
                Ok(lock) => locked.push(lock),
                Err(error) => break error,
            }
        };
        // None is held when this returns. What is lost meanwhile is not held either.
        let _ = release_all(locked).await;
        Err(error)
    }

    /// Asks for several keys at once and keeps those before the first that is refused, which is returned.
    async fn ask_for_all(
        &self,
        keys: &[LockKey],
        once: &LockOptions,
        options: &LockOptions,
        locked: &mut Vec<Locked>,
    ) -> Option<(LockKey, LockError)> {
        let pending = self.ask_together(keys, once, options);
        let (mut refused, mut beyond) = (None, Vec::new());
        // Every answer is waited for: what comes after a refusal is given back.
        for (pending, key) in pending.into_iter().zip(keys) {
            match pending.await {
                Ok(lock) if refused.is_none() => locked.push(lock),
                Ok(lock) => beyond.push(lock),
                Err(error) => {
                    refused.get_or_insert_with(|| (key.clone(), error));
                }
            }
        }
        // Nobody is kept from them while the one that was refused is waited for. Lost ones are not held either.
        let _ = release_all(beyond).await;
        refused
    }

    /// All in one turn of the core's, so that they go together. `once` is how each is asked for, for a call with these `options`.
    fn ask_together(
        &self,
        keys: &[LockKey],
        once: &LockOptions,
        options: &LockOptions,
    ) -> Vec<Pending> {
        let (replies, answers): (Vec<Reply>, Vec<_>) =
            keys.iter().map(|_| oneshot::channel()).unzip();
        let requests = self.hub.act_and_help(options.waits(), |core, now| {
            core.batched(now, |core| {
                let asked = keys.iter().zip(replies);
                asked
                    .map(|(key, reply)| core.request(key.clone(), once, false, reply, now))
                    .collect::<Vec<_>>()
            })
        });
        let asked = keys.iter().zip(requests).zip(answers);
        asked
            .map(|((key, request), answer)| Pending {
                request: Some((request, key.raw())),
                reception: Reception(answer),
                hub: Arc::clone(&self.hub),
                key: key.clone(),
                mode: once.lock_mode(),
            })
            .collect()
    }

    pub(super) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        self.hub.act(|core, now| core.close(reply, now));
        // It is over too if the answer is lost.
        let _ = answer.await;
    }
}

/// A lock that cannot be had is no error.
pub(super) fn none_if_busy<T>(locked: Result<T, LockError>) -> Result<Option<T>, LockError> {
    match locked {
        Ok(locked) => Ok(Some(locked)),
        Err(error) => match error.kind() {
            LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut => Ok(None),
            _ => Err(error),
        },
    }
}

/// Refuses options that contradict each other, or make no sense here.
fn check(options: &LockOptions, key: &LockKey) -> Result<(), LockError> {
    options.validate()?;
    if options.allows_transaction() {
        let why = "a locker's sessions are in no transaction";
        let error = LockError::new(LockErrorKind::InvalidOptions);
        return Err(error.with_key(key).with_context(why));
    }
    Ok(())
}

/// A request that waits for its answer.
struct Pending {
    /// Taken when it is answered.
    request: Option<(RequestId, RawLockKey)>,
    reception: Reception,
    hub: Arc<Hub>,
    key: LockKey,
    mode: LockMode,
}

impl Future for Pending {
    type Output = Result<Locked, LockError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.reception).poll(context));
        self.request = None;
        Poll::Ready(match answer {
            Some(Answer::Granted(held)) => {
                events::granted_by_lock_manager(&self.key, self.mode);
                Ok(Locked {
                    held,
                    key: self.key.clone(),
                    mode: self.mode,
                })
            }
            Some(Answer::Refused(error)) => Err(error),
            Some(Answer::Released(_) | Answer::Closed) | None => {
                Err(LockError::new(LockErrorKind::Closed).with_key(&self.key))
            }
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((request, key)) = self.request.take() {
            self.hub.act(|core, now| core.cancel(request, key, now));
        }
    }
}

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Locked {
    held: Held,
    key: LockKey,
    mode: LockMode,
}

impl Locked {
    pub(super) const fn key(&self) -> &LockKey {
        &self.key
    }

    pub(super) const fn mode(&self) -> LockMode {
        self.mode
    }

    pub(super) const fn token(&self) -> Option<i64> {
        self.held.token
    }

    pub(super) fn generation(&self) -> u64 {
        self.held.session.map_or(0, SessionId::generation)
    }

    pub(super) fn loss(&self) -> Option<&LossSignal> {
        self.held.loss.as_deref()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.loss().is_some_and(LossSignal::is_fired)
    }

    /// Gives the lock back at once; what is returned tells how that went.
    pub(super) fn release(self) -> impl Future<Output = Result<(), LockError>> + Send {
        let Self { held, key, .. } = self;
        let answer = held.give_back();
        released(answer, key)
    }
}

/// Gives several locks of one locker back, all of them whatever happens; the first error is returned.
pub(super) async fn release_all(locked: impl IntoIterator<Item = Locked>) -> Result<(), LockError> {
    let (held, keys): (Vec<_>, Vec<_>) = locked
        .into_iter()
        .map(|locked| (locked.held, locked.key))
        .unzip();
    let mut result = Ok(());
    for (answer, key) in Held::give_back_all(held).into_iter().zip(keys) {
        result = result.and(released(answer, key).await);
    }
    result
}

async fn released(answer: Reception, key: LockKey) -> Result<(), LockError> {
    let kind = match answer.await {
        Some(Answer::Released(Ok(()))) => {
            events::released(&key);
            return Ok(());
        }
        Some(Answer::Released(Err(kind))) => kind,
        Some(Answer::Granted(_) | Answer::Refused(_) | Answer::Closed) | None => {
            LockErrorKind::Lost
        }
    };
    Err(LockError::new(kind).with_key(&key))
}
