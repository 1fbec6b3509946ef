//! Without the feature `testing`: values that cannot exist.

use std::ops::{Deref, DerefMut};

use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::options::LockScope;
use crate::protocol::Acquired;
use crate::session::{Backend, LockReply, Script, SessionError, Statement};

/// Nobody.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StandIn {}

impl StandIn {
    #[inline]
    pub(crate) const fn of<S: ?Sized>(_session: &mut S, _backend: Backend) -> Option<Self> {
        None
    }

    pub(crate) const fn provides_exclusion(&self) -> bool {
        match *self {}
    }

    pub(crate) const fn sees_the_end(self) -> Self {
        self
    }

    pub(crate) const fn attempt(
        self,
        _key: &LockKey,
        _mode: LockMode,
        _level: LockScope,
    ) -> Attempt {
        match self {}
    }

    pub(crate) const fn fails_checkout(&self, _key: &LockKey) -> Option<SessionError> {
        match *self {}
    }
}

/// An attempt that nobody answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attempt {}

impl Attempt {
    pub(crate) fn query(&self, _statement: &Statement) -> Result<LockReply, SessionError> {
        match *self {}
    }

    pub(crate) fn batch(&self, _batch: &Script) -> Result<(), SessionError> {
        match *self {}
    }

    #[cfg(feature = "_async")]
    #[expect(clippy::unused_async, reason = "the twin of a method that does wait")]
    pub(crate) async fn batch_async<S>(
        &self,
        _batch: &Script,
        _session: &mut S,
    ) -> Result<(), SessionError> {
        match *self {}
    }

    pub(crate) const fn before_commit(&self) -> Result<(), SessionError> {
        match *self {}
    }

    pub(crate) const fn hold(&self) -> Option<Hold> {
        match *self {}
    }

    pub(crate) const fn not_released(&self, _kind: LockErrorKind) {
        match *self {}
    }

    pub(crate) const fn ended(&self, _outcome: &Result<Acquired, LockError>) {
        match *self {}
    }
}

/// A lock that nobody holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hold {}

impl Hold {
    pub(crate) const fn attempt(&self) -> &Attempt {
        match *self {}
    }

    pub(crate) const fn set_session<S: ?Sized>(&self, _session: &mut S) {
        match *self {}
    }
}

/// A guard's connection, where it is.
#[derive(Debug)]
pub(crate) struct Kept<C>(C);

impl<C> Kept<C> {
    pub(crate) const fn new(conn: C) -> Self {
        Self(conn)
    }
}

impl<C> Deref for Kept<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C> DerefMut for Kept<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0
    }
}
