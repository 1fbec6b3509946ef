//! Simulated session: a connection to SQLite whose locks are in the lock table of a test.
//!
//! # Implementation details
//!
//! A driver wraps the connection for one call. The wrapper reports PostgreSQL, so the machines of
//! the protocol send their statements. It answers them from the lock table. Transaction control
//! goes to the connection. A script that terminates the session rolls back its transactions.
//!
//! The table records a grant and a release while it is locked, so that their order is that of the
//! events. The log events of `events` come later.
//!
//! A session is identified by the address of its connection. A guard boxes its connection, so the
//! address stays valid when the guard moves. Each acquire call gets a number, which also serves as
//! its process id. The [`SimulatedLock`] is attached to the grant. It is released when the grant is
//! dropped, on every path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::context;
use super::event::not_acquired;
use super::shared_table::{LockRequest, Owner, SharedLockTable};
use super::table::session_ended;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::protocol::{Grant, SessionSnapshot};
use crate::session::{
    Backend, LockReply, LockSession, Row, Script, ServerSigns, SessionError, Statement,
    StatementKind, TransactionState,
};

/// Connection to SQLite with a simulated lock, during one call.
pub(crate) struct SimulatedSession<'s, S: ?Sized> {
    session: &'s mut S,
    lock: Arc<SimulatedLock>,
    /// A begin is in flight.
    #[cfg(feature = "_async")]
    begins: bool,
}

impl<'s, S: ?Sized> SimulatedSession<'s, S> {
    /// Wraps a session that acquires a lock. `None` outside a test, and for a backend with locks.
    pub(crate) fn for_acquire(
        session: &'s mut S,
        snapshot: &SessionSnapshot,
        key: &LockKey,
        options: &LockOptions,
        scope: LockScope,
    ) -> Option<Self> {
        let table = current(snapshot.backend)?;
        let request = LockRequest {
            number: table.lock().next_number(),
            owner: Owner::session(session),
            key: key.clone(),
            mode: options.mode,
            scope,
            // Without an open transaction, the crate begins and ends that of the lock itself.
            observes_release: scope == LockScope::Session || snapshot.transaction.depth() == 0,
        };
        let lock = Arc::new(SimulatedLock {
            table,
            request,
            limit: options.limit().and(options.remaining(Duration::ZERO)),
            limit_passed: AtomicBool::new(false),
        });
        Some(Self {
            session,
            lock,
            #[cfg(feature = "_async")]
            begins: false,
        })
    }

    /// Wraps a session that releases a lock. `None` if the lock is not simulated.
    pub(crate) fn for_release(session: &'s mut S, grant: &Grant) -> Option<Self> {
        let lock = SimulatedLock::of(grant)?;
        Some(Self {
            session,
            lock,
            #[cfg(feature = "_async")]
            begins: false,
        })
    }

    /// Converts the snapshot of the connection to that of this session.
    pub(crate) fn snapshot(&self, snapshot: SessionSnapshot) -> SessionSnapshot {
        SessionSnapshot {
            backend: Backend::Postgres,
            provides_exclusion: self.lock.table.lock().excludes(),
            ..snapshot
        }
    }

    /// Notes that the crate terminates this session, which loses its other locks, too.
    fn end(&self) {
        self.lock.table.end_session(Owner::session(&*self.session));
    }

    /// Attaches the lock to its grant. Records an outcome without a grant.
    pub(crate) fn finish_acquire(self, outcome: &mut Result<Grant, LockError>) {
        match outcome {
            Ok(grant) => grant.attachment = Some(self.lock),
            Err(error) => {
                let SimulatedLock { table, request, .. } = &*self.lock;
                // The table itself records a grant.
                table.lock().record(request, not_acquired(error.kind()));
            }
        }
    }

    /// Records a failed release, and a body that ended its transaction or left one open in it. Any
    /// other end of a transaction is recorded when the grant is dropped.
    pub(crate) fn finish_release(self, outcome: &Result<(), LockError>) {
        let SimulatedLock { table, request, .. } = &*self.lock;
        let Err(error) = outcome else { return };
        let of_body = [LockErrorKind::NotHeld, LockErrorKind::TransactionLeftOpen];
        if request.scope == LockScope::Session || of_body.contains(&error.kind()) {
            table.not_released(request, error.kind());
        }
    }
}

/// Sets the session of a granted lock, once its connection has its final address.
pub(crate) fn set_session<S: ?Sized>(grant: &Grant, session: &S) {
    if let Some(lock) = SimulatedLock::of(grant) {
        let owner = Owner::session(session);
        lock.table.lock().set_owner(lock.request.number, owner);
    }
}

/// Notes that the crate terminates the session of a dropped body or guard, which loses its other
/// locks, too.
#[cfg(feature = "_async")]
pub(crate) fn end_session<S: ?Sized>(grant: Grant, session: &S) {
    if let Some(lock) = SimulatedLock::of(&grant) {
        let table = Arc::clone(&lock.table);
        // First: the lock of the body or guard is released.
        drop((lock, grant));
        table.end_session(Owner::session(session));
    }
}

/// Records that the lock of a dropped guard is not released, unless it is lost.
#[cfg(feature = "_async")]
pub(crate) fn not_released(grant: &Grant, kind: LockErrorKind) {
    if let Some(lock) = SimulatedLock::of(grant).filter(|_| !is_lost(grant)) {
        lock.table.not_released(&lock.request, kind);
    }
}

/// Returns `true` if the lock of the grant is lost.
pub(crate) fn is_lost(grant: &Grant) -> bool {
    SimulatedLock::of(grant).is_some_and(|lock| lock.table.lock().is_lost(lock.request.number))
}

/// Runs `hook` when the lock of the grant is lost.
#[cfg(feature = "lock-manager")]
pub(crate) fn on_lost(grant: &Grant, hook: impl Fn() + Send + Sync + 'static) {
    if let Some(lock) = SimulatedLock::of(grant) {
        lock.table.on_lost(&lock.request, Box::new(hook));
    }
}

/// Returns `true` if the limit of the next call for this key passes at once.
#[cfg(feature = "lock-manager")]
pub(crate) fn times_out(key: &LockKey) -> bool {
    context::current().is_some_and(|table| table.lock().times_out(key))
}

/// Returns the fault that a test injected into the checkout of a connection.
pub(crate) fn checkout_fault(backend: Backend, key: &LockKey) -> Result<(), SessionError> {
    let fault = current(backend).and_then(|table| table.lock().fails_checkout(key));
    fault.map_or(Ok(()), Err)
}

/// Returns the lock table of the current test. `None` for a backend with locks.
fn current(backend: Backend) -> Option<Arc<SharedLockTable>> {
    match backend {
        Backend::Postgres => None,
        Backend::Sqlite => context::current(),
    }
}

/// Lock of one acquire call. It is released when this is dropped.
struct SimulatedLock {
    table: Arc<SharedLockTable>,
    request: LockRequest,
    /// Limit of the call, if it waits with one.
    limit: Option<Duration>,
    /// `true` after an injected [`Fault::TimedOut`](super::Fault::TimedOut).
    limit_passed: AtomicBool,
}

impl SimulatedLock {
    fn of(grant: &Grant) -> Option<Arc<Self>> {
        Arc::clone(grant.attachment.as_ref()?).downcast().ok()
    }

    fn query(&self, statement: &Statement) -> Result<Row, SessionError> {
        let reply = |answer| LockReply {
            answer,
            pid: self.request.number,
            transaction_began: 0,
            server_signs: ServerSigns::NONE,
        };
        let reply = match statement.kind() {
            Some(StatementKind::TryAcquire { .. }) => reply(Some(self.try_acquire()?)),
            Some(StatementKind::Release { .. }) => self.table.release(&self.request)?,
            // A failed wait leaves no lock in the table.
            Some(StatementKind::ReleaseIfHeld { .. }) => reply(None),
            // Another level of the session, which the protocol cannot tell from that of the call.
            Some(StatementKind::IsHeld) => {
                reply(Some(self.table.lock().holds_in_mode(&self.request)))
            }
            Some(StatementKind::IsHeldByPreparedTransaction) => reply(Some(false)),
            // Only a lock manager sends batches, and none on SQLite.
            None => return Err(SessionError::unsupported(statement)),
        };
        Ok(reply.into())
    }

    fn try_acquire(&self) -> Result<bool, SessionError> {
        if self.limit.is_some() && self.table.lock().take_time_out(&self.request) {
            // Relaxed: the driver of the call sets and reads it.
            self.limit_passed.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        self.table.try_acquire(&self.request)
    }

    /// Returns the time by the clock of the test.
    fn now(&self) -> Instant {
        let now = self.table.clock.now();
        let passed = self.limit_passed.load(Ordering::Relaxed);
        let limit = self.limit.filter(|_| passed).unwrap_or_default();
        now.checked_add(limit).unwrap_or(now)
    }

    /// Pauses by a paused clock. Returns `false` if the clock runs, and for a call without a limit,
    /// which would never end.
    ///
    /// A thousand pauses reach any limit, because a poll takes real time.
    fn pause_on_paused_clock(&self, pause: Duration) -> bool {
        self.limit
            .is_some_and(|limit| self.table.clock.advance(pause.max(limit / 1_000)))
    }

    /// Returns an error if an injected fault terminated the session.
    fn check_session(&self) -> Result<(), SessionError> {
        self.table.lock().check_session(self.request.owner)
    }
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.table.on_grant_dropped(&self.request);
    }
}

/// Returns the limit of a [`Script::Wait`]. `None`: it has none.
fn limit(limit_ms: i32) -> Option<Duration> {
    let limit = u64::try_from(limit_ms).ok().filter(|limit| *limit > 0);
    limit.map(Duration::from_millis)
}

impl<S: LockSession + ?Sized> LockSession for SimulatedSession<'_, S> {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.session.session_transaction_state()
    }

    fn session_begin(&mut self) -> Result<(), SessionError> {
        self.session.session_begin()
    }

    fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        match self.lock.check_session() {
            // Without the check, which is SQL of PostgreSQL.
            Ok(()) => self.session.session_commit(None),
            // The transaction ends, as after a failed `COMMIT`, and the pool discards the
            // connection.
            Err(error) => {
                let rolled_back = self.session.session_rollback();
                self.session.session_mark_broken();
                rolled_back.and(Err(error))
            }
        }
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.session.session_rollback()?;
        self.lock.check_session()
    }

    fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.lock.query(statement)
    }

    fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        let SimulatedLock { table, request, .. } = &*self.lock;
        match *script {
            Script::Terminate { .. } => {
                self.end();
                while self.session.session_transaction_state().is_open() {
                    if self.session.session_rollback().is_err() {
                        break;
                    }
                }
                // On a server, too, the script that ends its session returns an error.
                Err(session_ended())
            }
            Script::Wait { limit_ms, .. } => table.wait(request, limit(limit_ms)),
            _ => self.lock.check_session(),
        }
    }

    fn session_mark_broken(&mut self) {
        self.session.session_mark_broken();
    }

    fn session_now(&mut self) -> Instant {
        self.lock.now()
    }

    fn session_sleep(&mut self, pause: Duration) {
        if !self.lock.pause_on_paused_clock(pause) {
            self.session.session_sleep(pause);
        }
    }
}

#[cfg(feature = "_async")]
mod asynchronous {
    use super::*;
    use crate::session::{AsyncLockSession, yield_now};

    impl<S: AsyncLockSession> AsyncLockSession for SimulatedSession<'_, S> {
        fn session_backend(&mut self) -> Backend {
            Backend::Postgres
        }

        fn session_transaction_state(&mut self) -> TransactionState {
            self.session.session_transaction_state()
        }

        async fn session_begin(&mut self) -> Result<(), SessionError> {
            // Still set if this future is dropped.
            self.begins = true;
            let begun = self.session.session_begin().await;
            self.begins = false;
            begun
        }

        async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
            match self.lock.check_session() {
                // Without the check, which is SQL of PostgreSQL.
                Ok(()) => self.session.session_commit(None).await,
                // The transaction ends, as after a failed `COMMIT`, and the pool discards the
                // connection.
                Err(error) => {
                    let rolled_back = self.session.session_rollback().await;
                    self.session.session_mark_broken();
                    rolled_back.and(Err(error))
                }
            }
        }

        async fn session_rollback(&mut self) -> Result<(), SessionError> {
            self.session.session_rollback().await?;
            self.lock.check_session()
        }

        async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
            self.lock.query(statement)
        }

        async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
            let SimulatedLock { table, request, .. } = &*self.lock;
            match *script {
                Script::Terminate { .. } => {
                    self.end();
                    while self.session.session_transaction_state().is_open() {
                        if self.session.session_rollback().await.is_err() {
                            break;
                        }
                    }
                    Err(session_ended())
                }
                Script::Wait { limit_ms, .. } => {
                    let limit = limit(limit_ms);
                    table.wait_async(request, limit, self.session).await
                }
                _ => self.lock.check_session(),
            }
        }

        fn session_mark_broken(&mut self) {
            self.session.session_mark_broken();
        }

        fn session_start_rollback_to(&mut self, depth: u32) -> bool {
            // sqlx's thread itself rolls back a begin that is dropped, and counts it until then.
            // One more rollback would end the transaction of the caller.
            !self.begins && self.session.session_start_rollback_to(depth)
        }

        fn session_start_terminate(&mut self, pid: Option<i32>) {
            self.end();
            self.session.session_start_terminate(pid);
        }

        fn session_cancel_and_terminate(&mut self, pid: Option<i32>) {
            self.end();
            self.session.session_cancel_and_terminate(pid);
        }

        fn session_max_server_wait(&self) -> Option<Duration> {
            self.session.session_max_server_wait()
        }

        fn session_now(&mut self) -> Instant {
            self.lock.now()
        }

        async fn session_sleep(&mut self, pause: Duration) {
            if self.lock.pause_on_paused_clock(pause) {
                yield_now().await;
            } else {
                self.session.session_sleep(pause).await;
            }
        }
    }
}
