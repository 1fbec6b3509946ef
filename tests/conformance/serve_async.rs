//! The actor of an async client: the twin of [`serve`](crate::serve). It blocks its own thread between commands; what the client
//! does in the background runs on the runtime's other threads.

use std::future::{Future, poll_fn};
use std::ops::DerefMut;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;

use advisory_locking::session::{AsyncLockPool, AsyncLockSession};
use advisory_locking::{
    AsyncAdvisoryLockGuard, AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockKey,
    LockOptions,
};

use crate::actor::{Ask, BODY_VALUE, Command, Ending, Level, Mail, Outcome, Raw};
use crate::serve::{BodyError, BodyPanic, Exit, client};

type BoxFuture<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// A connection, and what can be done on it without the library.
pub(crate) trait AsyncClient: AsyncLockSession + Sized + 'static {
    fn raw(&mut self, raw: Raw) -> impl Future<Output = Outcome> + Send;

    /// Opens a test framework's transaction.
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
#[cfg(feature = "diesel-async-postgres")]
pub(crate) async fn connection<C: AsyncClient>(conn: &mut C, mail: &Mail) {
    let _quit = serve(conn, mail).await;
}

/// An actor with a pool.
pub(crate) async fn pool<P>(pool: &P, mail: &Mail)
where
    P: AsyncLockPool<Session: AsyncClient>,
{
    loop {
        let exit = match mail.next() {
            Command::Acquire(Ask {
                key,
                options,
                must: true,
            }) => {
                hold(
                    AsyncPooledAdvisoryLocking::acquire_advisory_lock(pool, key, options)
                        .await
                        .map(Some),
                    mail,
                )
                .await
            }
            Command::Acquire(Ask {
                key,
                options,
                must: false,
            }) => {
                hold(
                    AsyncPooledAdvisoryLocking::try_acquire_advisory_lock(pool, key, options).await,
                    mail,
                )
                .await
            }
            Command::With(level, Ask { key, options, must }) => {
                let body = async |conn: &mut P::Session| body(conn, mail).await;
                match (level, must) {
                    (Level::Session, true) => {
                        run(mail, async {
                            pool.with_advisory_lock(key, options, body).await.map(Some)
                        })
                        .await
                    }
                    (Level::Session, false) => {
                        run(mail, pool.try_with_advisory_lock(key, options, body)).await
                    }
                    (Level::Transaction, true) => {
                        run(mail, async {
                            pool.with_advisory_xact_lock(key, options, body)
                                .await
                                .map(Some)
                        })
                        .await
                    }
                    (Level::Transaction, false) => {
                        run(mail, pool.try_with_advisory_xact_lock(key, options, body)).await
                    }
                }
            }
            command => checked_out(pool, command, mail).await,
        };
        if exit.is_some() {
            return;
        }
    }
}

/// Keeps one of the pool's connections while a transaction is open on it.
async fn checked_out<P>(pool: &P, mut command: Command, mail: &Mail) -> Option<Exit>
where
    P: AsyncLockPool<Session: AsyncClient>,
{
    if matches!(command, Command::Quit) {
        return Some(Exit::Quit);
    }
    let mut conn = pool.checkout().await.expect("the pool has a connection");
    loop {
        let exit = one(&mut *conn, command, mail).await;
        if exit.is_some() || !conn.session_transaction_state().is_open_on_server() {
            return exit;
        }
        command = mail.next();
    }
}

fn serve<'f, C: AsyncClient>(conn: &'f mut C, mail: &'f Mail) -> BoxFuture<'f, Exit> {
    Box::pin(async move {
        loop {
            if let Some(exit) = one(conn, mail.next(), mail).await {
                return exit;
            }
        }
    })
}

async fn one<C: AsyncClient>(conn: &mut C, command: Command, mail: &Mail) -> Option<Exit> {
    match command {
        Command::Acquire(Ask {
            key,
            options,
            must: true,
        }) => {
            return hold(
                conn.acquire_advisory_lock(key, options).await.map(Some),
                mail,
            )
            .await;
        }
        Command::Acquire(Ask {
            key,
            options,
            must: false,
        }) => {
            return hold(conn.try_acquire_advisory_lock(key, options).await, mail).await;
        }
        Command::With(level, Ask { key, options, must }) => {
            let body = async |conn: &mut C| body(conn, mail).await;
            return match (level, must) {
                (Level::Session, true) => {
                    run(mail, async {
                        conn.with_advisory_lock(key, options, body).await.map(Some)
                    })
                    .await
                }
                (Level::Session, false) => {
                    run(mail, conn.try_with_advisory_lock(key, options, body)).await
                }
                (Level::Transaction, true) => {
                    run(mail, async {
                        conn.with_advisory_xact_lock(key, options, body)
                            .await
                            .map(Some)
                    })
                    .await
                }
                (Level::Transaction, false) => {
                    run(mail, conn.try_with_advisory_xact_lock(key, options, body)).await
                }
            };
        }
        Command::Release => return Some(Exit::Release),
        Command::DropGuard => return Some(Exit::Drop),
        Command::Leave(ending) => return Some(Exit::Leave(ending)),
        Command::Quit => return Some(Exit::Quit),
        Command::XactAcquire(Ask { key, options, must }) => {
            mail.reply(xact(conn, key, options, must).await)
        }
        Command::Begin => mail.reply(client(conn.session_begin().await)),
        Command::Commit => mail.reply(client(conn.session_commit().await)),
        Command::Rollback => mail.reply(client(conn.session_rollback().await)),
        Command::BeginTest => mail.reply(conn.begin_test().await),
        Command::Excludes => mail.reply(Outcome::Excludes(
            conn.capabilities().provides_mutual_exclusion(),
        )),
        Command::Raw(raw) => mail.reply(conn.raw(raw).await),
    }
    None
}

async fn xact<C: AsyncClient>(
    conn: &mut C,
    key: LockKey,
    options: LockOptions,
    must: bool,
) -> Outcome {
    let granted = if must {
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

async fn hold<D>(
    granted: Result<Option<AsyncAdvisoryLockGuard<D>>, LockError>,
    mail: &Mail,
) -> Option<Exit>
where
    D: DerefMut<Target: AsyncClient> + Send,
{
    let mut guard = match granted {
        Ok(Some(guard)) => guard,
        Ok(None) => {
            mail.reply(Outcome::NotGranted);
            return None;
        }
        Err(error) => {
            mail.reply(Outcome::failed(&error));
            return None;
        }
    };
    mail.reply(Outcome::Granted);
    match serve(&mut *guard, mail).await {
        Exit::Release => mail.reply(Outcome::of(guard.release().await)),
        Exit::Drop => {
            drop(guard);
            mail.reply(Outcome::Done);
        }
        Exit::Quit => return Some(Exit::Quit),
        Exit::Leave(_) => panic!("a body cannot be left from under a guard taken in it"),
    }
    None
}

async fn run(
    mail: &Mail,
    call: impl Future<Output = Result<Option<i64>, BodyError>>,
) -> Option<Exit> {
    // Dropped as soon as it has panicked, as a runtime does.
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
        Ok(Ok(Some(value))) => Outcome::Ran(value),
        Ok(Ok(None)) => Outcome::NotGranted,
        Ok(Err(BodyError::Lock(kind))) => Outcome::Failed(kind),
        Ok(Err(BodyError::Body)) => Outcome::BodyFailed,
        Ok(Err(BodyError::Quit)) => return Some(Exit::Quit),
        Err(payload) if payload.is::<BodyPanic>() => Outcome::Panicked,
        Err(payload) => resume_unwind(payload),
    };
    mail.reply(outcome);
    None
}

fn body<'f, C: AsyncClient>(
    conn: &'f mut C,
    mail: &'f Mail,
) -> BoxFuture<'f, Result<i64, BodyError>> {
    Box::pin(async move {
        mail.reply(Outcome::Entered);
        match serve(conn, mail).await {
            Exit::Leave(Ending::Ok) => Ok(BODY_VALUE),
            Exit::Leave(Ending::Err) => Err(BodyError::Body),
            // Not `panic!`, which would print.
            Exit::Leave(Ending::Panic) => resume_unwind(Box::new(BodyPanic)),
            Exit::Quit => Err(BodyError::Quit),
            Exit::Release | Exit::Drop => panic!("a guard cannot be released from inside a body"),
        }
    })
}
