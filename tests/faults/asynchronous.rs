//! An async client of the model. Its futures are pending before and after each request, and the
//! server executes a request whose future is dropped.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use advisory_locking::session::{AsyncLockPool, AsyncLockSession};
use advisory_locking::session::{
    Backend, LockSession, Row, Script, SessionError, Statement, TransactionState,
};

use crate::pool::{Pool, PoolSession, Pooled};
use testkit::model::ModelSession;

pub(crate) struct AsyncSession(pub(crate) ModelSession);

/// Pending once.
async fn pending() {
    let mut polled = false;
    poll_fn(|_| {
        if std::mem::replace(&mut polled, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// A request in flight. The server executes it, also if the future is dropped first.
struct InFlight<'s, F: FnOnce(&mut ModelSession) -> T, T> {
    session: &'s mut ModelSession,
    request: Option<F>,
}

impl<F: FnOnce(&mut ModelSession) -> T, T> InFlight<'_, F, T> {
    fn deliver(&mut self) -> Option<T> {
        self.request.take().map(|request| request(self.session))
    }
}

impl<F: FnOnce(&mut ModelSession) -> T, T> Drop for InFlight<'_, F, T> {
    fn drop(&mut self) {
        self.deliver();
    }
}

impl AsyncSession {
    async fn request<T>(&mut self, request: impl FnOnce(&mut ModelSession) -> T + Send) -> T {
        let mut sent = InFlight {
            session: &mut self.0,
            request: Some(request),
        };
        pending().await;
        let answer = sent.deliver();
        pending().await;
        answer.unwrap_or_else(|| unreachable!("a request is delivered once"))
    }
}

impl AsyncLockSession for AsyncSession {
    fn session_backend(&mut self) -> Backend {
        self.0.session_backend()
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.0.session_transaction_state()
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        self.request(LockSession::session_begin).await
    }

    async fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        self.request(|session| LockSession::session_commit(session, check))
            .await
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.request(LockSession::session_rollback).await
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.request(|session| LockSession::session_query(session, statement))
            .await
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.request(|session| LockSession::session_execute(session, script))
            .await
    }

    fn session_mark_broken(&mut self) {
        self.0.session_mark_broken();
    }

    fn session_start_terminate(&mut self, _pid: Option<i32>) {
        self.0.terminate();
    }

    fn session_enqueue(&mut self, script: &Script) -> bool {
        // The planned faults count requests that wait for a reply, so they do not apply here.
        let pid = self.0.pid();
        let queued = self.0.model().run(|server| server.script(pid, script));
        queued.is_ok()
    }

    async fn session_sleep(&mut self, pause: Duration) {
        pending().await;
        std::thread::sleep(pause);
    }
}

/// Polls a future to its end, or drops it after it was pending this many times (`None`).
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
