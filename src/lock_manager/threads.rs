//! The sessions of a blocking locker: the same as those of an async one, each on a thread of its own, where every future is ready at once.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::session::LockPool;
use crate::session::{AsyncLockPool, AsyncLockSession};
use crate::session::{
    Backend, BatchReply, LockBatch, LockReply, LockSession, Script, SessionError, SingleOp,
    Statement, TransactionState,
};

/// A blocking pool, for a thread that may block.
pub(super) struct OnThread<P>(pub(super) P);

impl<P> AsyncLockPool for OnThread<P>
where
    P: LockPool<Connection: Send> + Sync,
{
    type Session = Blocked<P::Connection>;
    type Connection = Boxed<P::Connection>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        self.0.checkout().map(|conn| Boxed(Blocked(conn)))
    }
}

/// A connection whose statements block.
pub(super) struct Blocked<C>(C);

/// It, as what a pool gives.
pub(super) struct Boxed<C>(Blocked<C>);

impl<C> Deref for Boxed<C> {
    type Target = Blocked<C>;

    fn deref(&self) -> &Blocked<C> {
        &self.0
    }
}

impl<C> DerefMut for Boxed<C> {
    fn deref_mut(&mut self) -> &mut Blocked<C> {
        &mut self.0
    }
}

impl<C: DerefMut<Target: LockSession> + Send> AsyncLockSession for Blocked<C> {
    fn session_backend(&mut self) -> Backend {
        self.0.session_backend()
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.0.session_transaction_state()
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        self.0.session_begin()
    }

    async fn session_commit(&mut self) -> Result<(), SessionError> {
        self.0.session_commit()
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.0.session_rollback()
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<LockReply, SessionError> {
        self.0.session_query(statement)
    }

    async fn session_execute(&mut self, batch: &Script) -> Result<(), SessionError> {
        self.0.session_execute(batch)
    }

    async fn session_execute_batch(
        &mut self,
        round: &LockBatch,
    ) -> Result<BatchReply, SessionError> {
        self.0.session_execute_batch(round)
    }

    async fn session_execute_single(
        &mut self,
        step: &SingleOp,
    ) -> Result<Option<bool>, SessionError> {
        self.0.session_execute_single(step)
    }

    async fn session_terminate(&mut self) {
        self.0.session_terminate();
    }

    /// Nothing is ever in flight here.
    fn session_start_terminate(&mut self) {
        self.0.session_terminate();
    }

    async fn session_sleep(&mut self, pause: Duration) {
        std::thread::sleep(pause);
    }
}
