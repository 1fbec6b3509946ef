//! A blocking pool behind the async ports, so that all lock managers share one session loop.
//!
//! # Implementation details
//!
//! Every future here is ready at its first poll, which blocks the thread meanwhile. So a future is
//! never dropped with a statement in flight, and no statement can be cancelled.

use std::ops::DerefMut;
use std::time::Duration;

use crate::driver::blocking::terminate;
use crate::session::{AsyncLockPool, AsyncLockSession, LockPool, LockSession};
use crate::session::{Backend, Row, Script, SessionError, Statement, TransactionState};

/// A blocking pool as an async one.
pub(super) struct BlockingPool<P>(pub(super) P);

impl<P> AsyncLockPool for BlockingPool<P>
where
    P: LockPool<Connection: Send> + Sync,
{
    type Session = BlockingSession<P::Connection>;
    // The port asks for a type that dereferences to its session.
    type Connection = Box<Self::Session>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        // Without a limit: the session serves many calls, whose deadlines are timers of the core.
        let conn = self.0.checkout()?;
        Ok(Box::new(BlockingSession(conn)))
    }
}

/// A blocking session as an async one.
pub(super) struct BlockingSession<C>(C);

impl<C: DerefMut<Target: LockSession> + Send> AsyncLockSession for BlockingSession<C> {
    fn session_backend(&mut self) -> Backend {
        self.0.session_backend()
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.0.session_transaction_state()
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        self.0.session_begin()
    }

    async fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        self.0.session_commit(check)
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.0.session_rollback()
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.0.session_query(statement)
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.0.session_execute(script)
    }

    fn session_mark_broken(&mut self) {
        self.0.session_mark_broken();
    }

    /// Terminates at once: a blocking session has no statement in flight between two calls.
    fn session_start_terminate(&mut self, pid: Option<i32>) {
        terminate(&mut *self.0, pid);
    }

    async fn session_sleep(&mut self, pause: Duration) {
        self.0.session_sleep(pause);
    }
}
