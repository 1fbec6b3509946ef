//! The sessions of a blocking locker: the same as those of an async one, each on a thread of its own, where every future is ready at once.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::asynchronous::{AsyncLockPool, AsyncLockSession};
use crate::pool::LockPool;
use crate::session::{
    Backend, Batch, LockSession, Round, RoundRow, Row, SessionError, SingleStep, Statement,
    TransactionState,
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
    fn backend(&mut self) -> Backend {
        self.0.backend()
    }

    fn transaction_state(&mut self) -> TransactionState {
        self.0.transaction_state()
    }

    async fn begin(&mut self) -> Result<(), SessionError> {
        self.0.begin()
    }

    async fn commit(&mut self) -> Result<(), SessionError> {
        self.0.commit()
    }

    async fn rollback(&mut self) -> Result<(), SessionError> {
        self.0.rollback()
    }

    async fn query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.0.query(statement)
    }

    async fn batch(&mut self, batch: &Batch) -> Result<(), SessionError> {
        self.0.batch(batch)
    }

    async fn round(&mut self, round: &Round) -> Result<RoundRow, SessionError> {
        self.0.round(round)
    }

    async fn single_step(&mut self, step: &SingleStep) -> Result<Option<bool>, SessionError> {
        self.0.single_step(step)
    }

    async fn condemn(&mut self) {
        self.0.condemn();
    }

    /// Nothing is ever in flight here.
    fn abandon(&mut self) {
        self.0.condemn();
    }

    async fn sleep(&mut self, pause: Duration) {
        std::thread::sleep(pause);
    }
}
