//! Limits of a checkout, and the rest that remains for the wait.

use std::ops::{Deref, DerefMut};
use std::thread;

use super::*;
use crate::options::WaitStrategy;
use crate::pooling_mode::PoolingMode;
use crate::session::{
    Backend, LockPool, LockReply, LockSession, Row, Script, ServerSigns, Statement,
    TransactionState,
};

/// Duration of a checkout.
const CHECKOUT: Duration = Duration::from_millis(30);
const LIMIT: Duration = Duration::from_secs(100);

/// Session on which the lock is contended, and each wait is granted at once.
#[derive(Debug, Default)]
struct ContendedSession {
    /// Limit of the last wait, in milliseconds.
    limit_ms: i32,
    is_sqlite: bool,
}

impl ContendedSession {
    fn new(is_sqlite: bool) -> Self {
        Self {
            is_sqlite,
            ..Self::default()
        }
    }

    fn reply() -> Result<Row, SessionError> {
        Ok(Row::from(LockReply {
            answer: Some(false),
            pid: 1,
            transaction_began: 1,
            server_signs: ServerSigns::NONE,
        }))
    }

    fn run(&mut self, script: &Script) -> Result<(), SessionError> {
        if let Script::Wait { limit_ms, .. } = *script {
            self.limit_ms = limit_ms;
        }
        Ok(())
    }
}

impl LockSession for ContendedSession {
    fn session_backend(&mut self) -> Backend {
        if self.is_sqlite {
            Backend::Sqlite
        } else {
            Backend::Postgres
        }
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
    }

    fn session_mark_broken(&mut self) {}

    fn session_begin(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_query(&mut self, _: &Statement) -> Result<Row, SessionError> {
        Self::reply()
    }

    fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.run(script)
    }
}

/// Pool that creates a session for each checkout, slowly.
struct SlowPool;

struct Checked(ContendedSession);

impl Deref for Checked {
    type Target = ContendedSession;

    fn deref(&self) -> &ContendedSession {
        &self.0
    }
}

impl DerefMut for Checked {
    fn deref_mut(&mut self) -> &mut ContendedSession {
        &mut self.0
    }
}

impl LockPool for SlowPool {
    type Session = ContendedSession;
    type Connection = Checked;

    fn checkout(&self) -> Result<Checked, SessionError> {
        thread::sleep(CHECKOUT);
        Ok(Checked(ContendedSession::default()))
    }
}

/// Asserts that a wait had at most the rest of the limit.
#[track_caller]
fn assert_rest(limit_ms: i32) {
    let limit = Duration::from_millis(u64::try_from(limit_ms).unwrap());
    assert!(
        limit > Duration::ZERO && limit <= LIMIT - CHECKOUT,
        "{limit:?}"
    );
}

fn options() -> LockOptions {
    LockOptions::wait_up_to(LIMIT).strategy(WaitStrategy::Block)
}

#[test]
fn wait_gets_the_rest_of_the_limit() {
    let guard = SlowPool.acquire_advisory_lock("rest", options()).unwrap();
    assert_rest(guard.limit_ms);
    let guard = SlowPool
        .try_acquire_advisory_lock("rest", options())
        .unwrap();
    assert_rest(guard.unwrap().limit_ms);
}

#[test]
fn transaction_gets_the_rest_of_the_limit() {
    let body = |conn: &mut ContendedSession| Ok::<_, LockError>(conn.limit_ms);
    let limit_ms = SlowPool.with_advisory_xact_lock("rest", options(), body);
    assert_rest(limit_ms.unwrap());
    let limit_ms = SlowPool.try_with_advisory_xact_lock("rest", options(), body);
    assert_rest(limit_ms.unwrap().unwrap());
}

/// A limit that the checkout used up leaves one attempt.
#[test]
fn late_connection_leaves_one_attempt() {
    let short = LockOptions::wait_up_to(CHECKOUT / 2);
    let error = SlowPool.acquire_advisory_lock("late", short).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TimedOut);
    assert_eq!(error.limit(), Some(CHECKOUT / 2));
    assert!(error.waited() >= Some(CHECKOUT), "{error}");
}

#[cfg(feature = "_async")]
mod asynchronous {
    use std::future::pending;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::session::{AsyncLockPool, AsyncLockSession};

    impl AsyncLockSession for ContendedSession {
        fn session_backend(&mut self) -> Backend {
            LockSession::session_backend(self)
        }

        fn session_transaction_state(&mut self) -> TransactionState {
            TransactionState::none()
        }

        fn session_mark_broken(&mut self) {}

        fn session_start_terminate(&mut self, _pid: Option<i32>) {}

        async fn session_begin(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_rollback(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_query(&mut self, _: &Statement) -> Result<Row, SessionError> {
            Self::reply()
        }

        async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
            self.run(script)
        }
    }

    /// Pool of a number of connections, which are never returned. It is slow.
    struct AsyncPool {
        connections: AtomicUsize,
        is_sqlite: bool,
    }

    fn pool(connections: usize) -> AsyncPool {
        AsyncPool {
            connections: AtomicUsize::new(connections),
            is_sqlite: false,
        }
    }

    impl AsyncLockPool for AsyncPool {
        type Session = ContendedSession;
        type Connection = Checked;

        async fn checkout(&self) -> Result<Checked, SessionError> {
            let taken = self.connections.fetch_sub(1, Ordering::Relaxed);
            if taken == 0 {
                pending::<()>().await;
            }
            futures_timer::Delay::new(CHECKOUT).await;
            Ok(Checked(ContendedSession::new(self.is_sqlite)))
        }
    }

    /// Polls a future until it is ready.
    fn block_on<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn async_wait_gets_the_rest_of_the_limit() {
        let pool = pool(2);
        let guard = block_on(pool.acquire_advisory_lock("rest", options())).unwrap();
        assert_rest(guard.limit_ms);
        let guard = block_on(pool.try_acquire_advisory_lock("rest", options())).unwrap();
        assert_rest(guard.unwrap().limit_ms);
    }

    #[test]
    fn async_transaction_gets_the_rest_of_the_limit() {
        let pool = pool(2);
        let body = async |conn: &mut ContendedSession| Ok::<_, LockError>(conn.limit_ms);
        let scope = pool.with_advisory_xact_lock("rest", options(), body);
        assert_rest(block_on(scope).unwrap());
        let body = async |conn: &mut ContendedSession| Ok::<_, LockError>(conn.limit_ms);
        let scope = pool.try_with_advisory_xact_lock("rest", options(), body);
        assert_rest(block_on(scope).unwrap().unwrap());
    }

    #[test]
    fn async_checkout_ends_at_the_limit() {
        let short = LockOptions::wait_up_to(Duration::from_millis(1));
        let error = block_on(pool(0).acquire_advisory_lock("empty", short)).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Pool);
        assert!(error.waited() >= Some(MIN_CHECKOUT), "{error}");
        let error = block_on(pool(0).try_acquire_advisory_lock("empty", short)).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Pool);
    }

    #[test]
    fn default_pause_ends_without_a_runtime() {
        let began = Instant::now();
        let mut session = ContendedSession::default();
        block_on(AsyncLockSession::session_sleep(&mut session, CHECKOUT));
        assert!(began.elapsed() >= CHECKOUT);
    }

    #[test]
    fn pooler_check_ends_without_a_second_connection() {
        let error = block_on(pool(1).detect_pooler()).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Pool);
    }

    #[test]
    fn async_pooler_check_of_sqlite_needs_one_connection() {
        let mut pool = pool(1);
        pool.is_sqlite = true;
        let mode = block_on(pool.detect_pooler());
        assert_eq!(mode.unwrap(), PoolingMode::NoLocks);
    }
}

/// Pool of one connection. Keeps the limit of the checkout that fails.
#[derive(Default)]
struct OneConnection {
    limit: std::cell::Cell<Option<Duration>>,
    is_sqlite: bool,
}

impl LockPool for OneConnection {
    type Session = ContendedSession;
    type Connection = Checked;

    fn checkout(&self) -> Result<Checked, SessionError> {
        Ok(Checked(ContendedSession::new(self.is_sqlite)))
    }

    fn checkout_within(&self, limit: Duration) -> Result<Checked, SessionError> {
        self.limit.set(Some(limit));
        Err(SessionError::new("the connection is in use"))
    }
}

/// A pool without a timeout of its own would wait for the first connection without end.
#[test]
fn pooler_check_limits_the_second_checkout() {
    let pool = OneConnection::default();
    let error = pool.detect_pooler().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Pool);
    assert_eq!(pool.limit.get(), Some(SECOND_CHECKOUT));
}

#[test]
fn pooler_check_of_sqlite_needs_one_connection() {
    let pool = OneConnection {
        is_sqlite: true,
        ..OneConnection::default()
    };
    assert_eq!(pool.detect_pooler().unwrap(), PoolingMode::NoLocks);
}

#[test]
fn only_a_limit_that_waits_bounds_the_checkout() {
    let up_to = |limit| checkout_limit(&LockOptions::wait_up_to(limit));
    assert_eq!(checkout_limit(&LockOptions::no_wait()), None);
    assert_eq!(checkout_limit(&LockOptions::wait_forever()), None);
    assert_eq!(up_to(Duration::ZERO), None);
    assert_eq!(up_to(Duration::from_nanos(1)), Some(MIN_CHECKOUT));
    assert_eq!(up_to(Duration::from_secs(1)), Some(Duration::from_secs(1)));
    assert_eq!(up_to(Duration::MAX), Some(Duration::MAX));
}

#[test]
fn unsupported_backend_is_named_in_the_error() {
    let error = pool_error(SessionError::unsupported_backend("a MySQL connection"));
    assert_eq!(error.kind(), LockErrorKind::Unsupported);
    assert!(error.to_string().contains("a MySQL connection"), "{error}");
}
