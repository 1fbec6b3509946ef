//! An async client of the model, whose futures are pending before and after each request. Who drops one does not stop the server.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use advisory_locking::session::{
    Backend, Batch, LockSession, Round, RoundRow, Row, SessionError, Statement, TransactionState,
};
use advisory_locking::{AsyncLockPool, AsyncLockSession};

use crate::model::ModelSession;
use crate::pool::{Pool, PoolSession, Pooled};

pub(crate) struct AsyncSession(pub(crate) ModelSession);

/// Pending once.
async fn pending() {
    let mut asked = false;
    poll_fn(|_| {
        if std::mem::replace(&mut asked, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// A request that the server has, whether its answer is waited for or not.
struct Sent<'s, F: FnOnce(&mut ModelSession) -> T, T> {
    session: &'s mut ModelSession,
    act: Option<F>,
}

impl<F: FnOnce(&mut ModelSession) -> T, T> Sent<'_, F, T> {
    fn arrive(&mut self) -> Option<T> {
        self.act.take().map(|act| act(self.session))
    }
}

impl<F: FnOnce(&mut ModelSession) -> T, T> Drop for Sent<'_, F, T> {
    fn drop(&mut self) {
        self.arrive();
    }
}

impl AsyncSession {
    async fn request<T>(&mut self, act: impl FnOnce(&mut ModelSession) -> T + Send) -> T {
        let mut sent = Sent {
            session: &mut self.0,
            act: Some(act),
        };
        pending().await;
        let answer = sent.arrive();
        pending().await;
        answer.unwrap_or_else(|| unreachable!("it arrives once"))
    }
}

impl AsyncLockSession for AsyncSession {
    fn backend(&mut self) -> Backend {
        self.0.backend()
    }

    fn transaction_state(&mut self) -> TransactionState {
        self.0.transaction_state()
    }

    async fn begin(&mut self) -> Result<(), SessionError> {
        self.request(LockSession::begin).await
    }

    async fn commit(&mut self) -> Result<(), SessionError> {
        self.request(LockSession::commit).await
    }

    async fn rollback(&mut self) -> Result<(), SessionError> {
        self.request(LockSession::rollback).await
    }

    async fn query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.request(|session| LockSession::query(session, statement))
            .await
    }

    async fn batch(&mut self, batch: &Batch) -> Result<(), SessionError> {
        self.request(|session| LockSession::batch(session, batch))
            .await
    }

    async fn round(&mut self, round: &Round) -> Result<RoundRow, SessionError> {
        self.request(|session| LockSession::round(session, round))
            .await
    }

    async fn condemn(&mut self) {
        self.request(LockSession::condemn).await;
    }

    fn abandon(&mut self) {
        self.0.condemn();
    }

    fn run_later(&mut self, batch: &Batch) -> bool {
        // Nobody waits for the answer, and no fault of a request hits what the server does by itself.
        let pid = self.0.pid();
        let queued = self.0.model().run(|server| server.batch(pid, batch));
        queued.is_ok()
    }

    async fn sleep(&mut self, pause: Duration) {
        pending().await;
        std::thread::sleep(pause);
    }
}

/// Polls until the end, or until it was pending so often: `None` then, as if its caller had waited no longer.
pub(crate) fn run_until<F: Future>(future: F, pending: Option<usize>) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut left = pending;
    loop {
        if left == Some(0) {
            return None;
        }
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        left = left.map(|left| left - 1);
    }
}

impl PoolSession for AsyncSession {
    fn is_broken(&mut self) -> bool {
        self.0.is_broken()
    }
}

impl AsyncLockPool for Pool<AsyncSession> {
    type Session = AsyncSession;
    type Connection = Pooled<AsyncSession>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        pending().await;
        Ok(self.get())
    }
}
