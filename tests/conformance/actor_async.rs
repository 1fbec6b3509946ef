//! The actor of an async client: the async copy of [`actor_blocking`](crate::actor_blocking).
//!
//! It blocks its own thread between commands. The client's background tasks run on the runtime's
//! other thread.

use std::future::{Future, poll_fn};
use std::ops::DerefMut;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use advisory_locking::session::{AsyncLockPool, AsyncLockSession};
use advisory_locking::{
    AsyncAdvisoryLockGuard, AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError,
    LockErrorKind, LockKey, LockOptions,
};

use crate::actor::{
    AcquireRequest, ActorChannel, BODY_VALUE, BodyEnd, CHECKOUT_LIMIT, CHECKOUTS, Command,
    LockScope, OUTER_LIMIT, Outcome, SqlCommand,
};
use crate::actor_blocking::{BodyError, BodyPanic, Exit, client};

type BoxFuture<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// A connection that also executes commands without the library.
pub(crate) trait AsyncClient: AsyncLockSession + Sized + 'static {
    fn run_sql(&mut self, command: SqlCommand) -> impl Future<Output = Outcome> + Send;

    /// Opens a test transaction.
    fn begin_test(&mut self) -> impl Future<Output = Outcome> + Send;
}

/// Runs an actor on a runtime of its own.
pub(crate) fn on_runtime<F: Future>(actor: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(actor);
}

/// An actor with a connection.
pub(crate) async fn connection<C: AsyncClient>(conn: &mut C, channel: &ActorChannel) {
    let _quit = serve(conn, channel).await;
    roll_back_all(conn).await;
}

/// Ends the transactions that a case has left open. tokio-postgres's adapter keeps their number by
/// the address of the client, where the next actor may have its own.
async fn roll_back_all<C: AsyncLockSession>(conn: &mut C) {
    while conn.session_transaction_state().is_open() {
        if conn.session_rollback().await.is_err() {
            return;
        }
    }
}

/// An actor with a pool.
pub(crate) async fn pool<P>(pool: &P, channel: &ActorChannel)
where
    P: AsyncLockPool<Session: AsyncClient>,
{
    drop(checkout(pool).await);
    loop {
        let exit = match channel.next() {
            Command::Acquire(AcquireRequest {
                key,
                options,
                fail_if_contended,
            }) => {
                let granted = retry_checkout(async || {
                    if fail_if_contended {
                        AsyncPooledAdvisoryLocking::acquire_advisory_lock(pool, &key, options)
                            .await
                            .map(Some)
                    } else {
                        AsyncPooledAdvisoryLocking::try_acquire_advisory_lock(pool, &key, options)
                            .await
                    }
                })
                .await;
                hold_guard(granted, channel).await
            }
            Command::With(
                scope,
                AcquireRequest {
                    key,
                    options,
                    fail_if_contended,
                },
            ) => {
                let body = async |conn: &mut P::Session| body(conn, channel).await;
                call_with_body(channel, async {
                    match (scope, fail_if_contended) {
                        (LockScope::Session, true) => {
                            pool.with_advisory_lock(key, options, body).await.map(Some)
                        }
                        (LockScope::Session, false) => {
                            pool.try_with_advisory_lock(key, options, body).await
                        }
                        (LockScope::Transaction, true) => {
                            let done = pool.with_advisory_xact_lock(key, options, body).await;
                            done.map(Some)
                        }
                        (LockScope::Transaction, false) => {
                            pool.try_with_advisory_xact_lock(key, options, body).await
                        }
                    }
                })
                .await
            }
            Command::Explain(AcquireRequest { key, options, .. }) => {
                let guard =
                    AsyncPooledAdvisoryLocking::acquire_advisory_lock(pool, key, options).await;
                channel.reply(Outcome::explained(guard));
                None
            }
            Command::Report(key) => {
                channel.reply(Outcome::reported(pool.advisory_lock_holders(key).await));
                None
            }
            command => checked_out(pool, command, channel).await,
        };
        if exit.is_some() {
            return;
        }
    }
}

/// Checks the connection out. On a loaded machine that may take longer than the pool's limit.
async fn checkout<P: AsyncLockPool>(pool: &P) -> P::Connection {
    let began = Instant::now();
    loop {
        match pool.checkout().await {
            Ok(conn) => return conn,
            Err(error) => assert!(began.elapsed() < OUTER_LIMIT, "no connection: {error:?}"),
        }
    }
}

/// Repeats a call whose checkout failed. On a loaded machine a checkout may take longer than a
/// short limit.
async fn retry_checkout<T>(call: impl AsyncFn() -> Result<T, LockError>) -> Result<T, LockError> {
    let began = Instant::now();
    for _ in 1..CHECKOUTS {
        match call().await {
            Err(error)
                if error.kind() == LockErrorKind::Pool && began.elapsed() < CHECKOUT_LIMIT => {}
            result => return result,
        }
    }
    call().await
}

/// Keeps a checked-out connection while a transaction is open on it.
async fn checked_out<P>(pool: &P, mut command: Command, channel: &ActorChannel) -> Option<Exit>
where
    P: AsyncLockPool<Session: AsyncClient>,
{
    if matches!(command, Command::Quit) {
        return Some(Exit::Quit);
    }
    let mut conn = checkout(pool).await;
    loop {
        let exit = run_command(&mut *conn, command, channel).await;
        if exit.is_some() || !conn.session_transaction_state().is_open_on_server() {
            roll_back_all(&mut *conn).await;
            return exit;
        }
        command = channel.next();
    }
}

fn serve<'f, C: AsyncClient>(conn: &'f mut C, channel: &'f ActorChannel) -> BoxFuture<'f, Exit> {
    Box::pin(async move {
        loop {
            if let Some(exit) = run_command(conn, channel.next(), channel).await {
                return exit;
            }
        }
    })
}

async fn run_command<C: AsyncClient>(
    conn: &mut C,
    command: Command,
    channel: &ActorChannel,
) -> Option<Exit> {
    match command {
        Command::Acquire(AcquireRequest {
            key,
            options,
            fail_if_contended,
        }) => {
            let granted = if fail_if_contended {
                conn.acquire_advisory_lock(key, options).await.map(Some)
            } else {
                conn.try_acquire_advisory_lock(key, options).await
            };
            return hold_guard(granted, channel).await;
        }
        Command::With(
            scope,
            AcquireRequest {
                key,
                options,
                fail_if_contended,
            },
        ) => {
            let body = async |conn: &mut C| body(conn, channel).await;
            return call_with_body(channel, async {
                match (scope, fail_if_contended) {
                    (LockScope::Session, true) => {
                        conn.with_advisory_lock(key, options, body).await.map(Some)
                    }
                    (LockScope::Session, false) => {
                        conn.try_with_advisory_lock(key, options, body).await
                    }
                    (LockScope::Transaction, true) => {
                        let done = conn.with_advisory_xact_lock(key, options, body).await;
                        done.map(Some)
                    }
                    (LockScope::Transaction, false) => {
                        conn.try_with_advisory_xact_lock(key, options, body).await
                    }
                }
            })
            .await;
        }
        Command::GuardPid => return Some(Exit::GuardPid),
        Command::Release => return Some(Exit::Release),
        Command::DropGuard => return Some(Exit::Drop),
        Command::EndBody(ending) => return Some(Exit::EndBody(ending)),
        Command::Quit => return Some(Exit::Quit),
        Command::XactAcquire(AcquireRequest {
            key,
            options,
            fail_if_contended,
        }) => channel.reply(xact(conn, key, options, fail_if_contended).await),
        Command::Begin => channel.reply(client(conn.session_begin().await)),
        Command::Commit => channel.reply(client(conn.session_commit(None).await)),
        Command::Rollback => channel.reply(client(conn.session_rollback().await)),
        Command::BeginTest => channel.reply(conn.begin_test().await),
        Command::Excludes => channel.reply(Outcome::Excludes(
            conn.capabilities().provides_mutual_exclusion(),
        )),
        Command::Explain(AcquireRequest { key, options, .. }) => {
            let guard = conn.acquire_advisory_lock(key, options).await;
            channel.reply(Outcome::explained(guard));
        }
        Command::Report(key) => {
            channel.reply(Outcome::reported(conn.advisory_lock_holders(key).await));
        }
        Command::Sql(command) => channel.reply(conn.run_sql(command).await),
    }
    None
}

async fn xact<C: AsyncClient>(
    conn: &mut C,
    key: LockKey,
    options: LockOptions,
    fail_if_contended: bool,
) -> Outcome {
    let granted = if fail_if_contended {
        conn.acquire_advisory_xact_lock(key, options)
            .await
            .map(|()| true)
    } else {
        conn.try_acquire_advisory_xact_lock(key, options).await
    };
    match granted {
        Ok(true) => Outcome::Granted,
        Ok(false) => Outcome::NotGranted,
        Err(error) => Outcome::failed(&error),
    }
}

async fn hold_guard<D>(
    granted: Result<Option<AsyncAdvisoryLockGuard<D>>, LockError>,
    channel: &ActorChannel,
) -> Option<Exit>
where
    D: DerefMut<Target: AsyncClient> + Send,
{
    let mut guard = match granted {
        Ok(Some(guard)) => guard,
        Ok(None) => {
            channel.reply(Outcome::NotGranted);
            return None;
        }
        Err(error) => {
            channel.reply(Outcome::failed(&error));
            return None;
        }
    };
    channel.reply(Outcome::Granted);
    loop {
        match serve(&mut *guard, channel).await {
            Exit::GuardPid => channel.reply(Outcome::Answered(guard.session_pid().map(i64::from))),
            Exit::Release => {
                channel.reply(Outcome::of(guard.release().await));
                return None;
            }
            Exit::Drop => {
                drop(guard);
                channel.reply(Outcome::Done);
                return None;
            }
            Exit::Quit => return Some(Exit::Quit),
            Exit::EndBody(_) => panic!("the guard was acquired in the body and ends before it"),
        }
    }
}

async fn call_with_body(
    channel: &ActorChannel,
    call: impl Future<Output = Result<Option<i64>, BodyError>>,
) -> Option<Exit> {
    // Drops the future as soon as it has panicked, as a runtime does.
    let ended = {
        let mut call = pin!(call);
        poll_fn(
            |context| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
                Err(payload) => Poll::Ready(Err(payload)),
            },
        )
        .await
    };
    let outcome = match ended {
        Ok(Ok(Some(value))) => Outcome::BodySucceeded(value),
        Ok(Ok(None)) => Outcome::NotGranted,
        Ok(Err(BodyError::Lock(kind))) => Outcome::Failed(kind),
        Ok(Err(BodyError::Body)) => Outcome::BodyFailed,
        Ok(Err(BodyError::Quit)) => return Some(Exit::Quit),
        Err(payload) if payload.is::<BodyPanic>() => Outcome::Panicked,
        Err(payload) => resume_unwind(payload),
    };
    channel.reply(outcome);
    None
}

fn body<'f, C: AsyncClient>(
    conn: &'f mut C,
    channel: &'f ActorChannel,
) -> BoxFuture<'f, Result<i64, BodyError>> {
    Box::pin(async move {
        channel.reply(Outcome::BodyStarted);
        match serve(conn, channel).await {
            Exit::EndBody(BodyEnd::Ok) => Ok(BODY_VALUE),
            Exit::EndBody(BodyEnd::Err) => Err(BodyError::Body),
            // `panic!` would print.
            Exit::EndBody(BodyEnd::Panic) => resume_unwind(Box::new(BodyPanic)),
            Exit::Quit => Err(BodyError::Quit),
            Exit::GuardPid | Exit::Release | Exit::Drop => {
                panic!("the guard was acquired outside the body")
            }
        }
    })
}
