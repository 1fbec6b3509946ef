//! Uninhabited types for builds without the feature `testing`.

use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::options::LockScope;
use crate::protocol::Acquired;
use crate::session::{Backend, LockReply, Script, SessionError, Statement};

/// Uninhabited: there are no simulated locks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SimulatedLocks {}

impl SimulatedLocks {
    #[inline]
    pub(crate) const fn of<S: ?Sized>(_session: &mut S, _backend: Backend) -> Option<Self> {
        None
    }

    pub(crate) const fn provides_exclusion(&self) -> bool {
        match *self {}
    }

    pub(crate) const fn owns_transaction(self) -> Self {
        self
    }

    pub(crate) const fn call(
        self,
        _key: &LockKey,
        _mode: LockMode,
        _scope: LockScope,
    ) -> SimulatedCall {
        match self {}
    }

    pub(crate) const fn fails_checkout(&self, _key: &LockKey) -> Option<SessionError> {
        match *self {}
    }
}

/// Uninhabited: no call is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SimulatedCall {}

impl SimulatedCall {
    pub(crate) fn query(&self, _statement: &Statement) -> Result<LockReply, SessionError> {
        match *self {}
    }

    pub(crate) fn execute(&self, _script: &Script) -> Result<(), SessionError> {
        match *self {}
    }

    #[cfg(feature = "_async")]
    #[expect(
        clippy::unused_async,
        reason = "matches the signature with the feature `testing`"
    )]
    pub(crate) async fn execute_async<S>(
        &self,
        _script: &Script,
        _session: &mut S,
    ) -> Result<(), SessionError> {
        match *self {}
    }

    pub(crate) const fn before_commit(&self) -> Result<(), SessionError> {
        match *self {}
    }

    pub(crate) const fn hold(&self) -> Option<SimulatedHold> {
        match *self {}
    }

    pub(crate) const fn not_released(&self, _kind: LockErrorKind) {
        match *self {}
    }

    pub(crate) const fn ended(&self, _outcome: &Result<Acquired, LockError>) {
        match *self {}
    }
}

/// Uninhabited: no simulated lock is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SimulatedHold {}

impl SimulatedHold {
    pub(crate) const fn call(&self) -> &SimulatedCall {
        match *self {}
    }

    pub(crate) const fn set_session<S: ?Sized>(&self, _session: &mut S) {
        match *self {}
    }
}
