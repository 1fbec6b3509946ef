//! One session: it does as it is ordered, on a connection of the pool.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::{Either, select};

use super::core::{Core, SessionId, WaitOutcome};
use super::hub::{Hub, Order, Orders, Reply};
use crate::backends::postgres::classify;
use crate::driver::asynchronous::{drive, snapshot};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::options::LockScope;
use crate::pool::pool_error;
use crate::protocol::{Acquire, Acquired};
use crate::session::{AsyncLockPool, AsyncLockSession};
use crate::session::{
    Backend, BatchMode, BatchReply, LockBatch, LockOpKind, Script, ScriptKind, SessionError,
    TokenSource,
};

/// Serves until it is told to give its connection back or to end it.
pub(super) fn serve<P>(
    hub: Arc<Hub>,
    pool: Arc<P>,
    id: SessionId,
    orders: Orders,
) -> impl Future<Output = ()> + Send
where
    P: AsyncLockPool + Send,
{
    // Here, not in the future: that may be dropped before its first poll, where its runtime has ended or no thread is to be had.
    let presence = Presence {
        hub,
        id,
        stage: Stage::Opening,
    };
    attend(presence, pool, orders)
}

async fn attend<P: AsyncLockPool>(mut presence: Presence, pool: Arc<P>, mut orders: Orders) {
    let id = presence.id;
    let mut conn: Option<Owned<P::Connection>> = None;
    while let Some(order) = next_order(&mut orders).await {
        match order {
            Order::Open => match unless_ordered(open(&*pool), &mut orders).await {
                Some(Ok((opened, backend, pid))) => {
                    conn = opened;
                    presence.stage = Stage::Open;
                    presence.tell(|core, now| core.on_opened(id, Ok((backend, pid)), now));
                }
                Some(Err(error)) => {
                    presence.stage = Stage::Gone;
                    presence.tell(|core, now| core.on_opened(id, Err(error), now));
                    return;
                }
                None => break,
            },
            Order::Run(round) => {
                let Some(session) = conn.as_mut() else { break };
                match unless_ordered(run(&mut **session, &round), &mut orders).await {
                    Some(answer) => {
                        presence.tell(|core, now| core.on_batch_result(id, answer, now))
                    }
                    None => break,
                }
            }
            Order::Wait { key, options } => {
                presence.stage = Stage::Waiting;
                let waited = wait(&*pool, &mut conn, key, &options);
                match unless_ordered(waited, &mut orders).await {
                    Some(waited) => {
                        presence.stage = Stage::Open;
                        presence.tell(|core, now| core.on_wait_ended(id, waited, now));
                    }
                    None => break,
                }
            }
            Order::Close => {
                if let Some(conn) = conn.take() {
                    conn.give_back();
                }
                break;
            }
            Order::Abandon => break,
        }
    }
    // Whatever is still held on it goes with it.
    drop(conn);
    presence.stage = Stage::Gone;
    presence.tell(|core, _| core.on_session_closed(id));
}

/// The next order. If it is there already, whoever runs the session may leave before it is carried out.
async fn next_order(orders: &mut Orders) -> Option<Order> {
    match orders.try_recv() {
        Ok(order) => {
            yield_now().await;
            Some(order)
        }
        Err(_) => orders.next().await,
    }
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Does something, unless there is an order in the meantime: that can only be to end the session.
async fn unless_ordered<T>(act: impl Future<Output = T>, orders: &mut Orders) -> Option<T> {
    match select(pin!(act), orders.next()).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

type Opened<C> = (Option<Owned<C>>, Backend, i32);

/// Checks a connection out and learns what it leads to.
async fn open<P: AsyncLockPool>(pool: &P) -> Result<Opened<P::Connection>, LockError> {
    let mut conn = checkout(pool).await.map_err(pool_error)?;
    let backend = conn.session_backend();
    if backend != Backend::Postgres {
        conn.give_back();
        return Ok((None, backend, 0));
    }
    let ping = LockBatch::new(
        BatchMode::Execute,
        0,
        Vec::new(),
        TokenSource::TransactionId,
    );
    match conn.session_execute_batch(&ping).await {
        Ok(row) => Ok((Some(conn), backend, row.pid)),
        Err(error) => {
            let kind = match classify(error.code()) {
                LockErrorKind::Unsupported => LockErrorKind::Unsupported,
                _ => LockErrorKind::Pool,
            };
            Err(LockError::new(kind).with_source(error.into_source()))
        }
    }
}

async fn checkout<P: AsyncLockPool>(pool: &P) -> Result<Owned<P::Connection>, SessionError> {
    let mut conn = Owned::new(pool.checkout().await?);
    let transaction = conn.session_transaction_state();
    if transaction.is_broken() || transaction.is_open() {
        return Err(SessionError::new(
            "the pool gave a connection that is broken or in a transaction",
        ));
    }
    Ok(conn)
}

async fn run<S: AsyncLockSession>(
    session: &mut S,
    round: &LockBatch,
) -> Result<BatchReply, SessionError> {
    let answer = match round.single() {
        Some(step) => {
            let answer = session.session_execute_single(&step).await;
            answer.map(|answer| step.row_of(answer))
        }
        None => session.session_execute_batch(round).await,
    };
    match answer {
        Err(error) if error.code().is_none() && !error.is_disconnected() => {
            Err(diagnosed(session, round, error).await)
        }
        answer => answer,
    }
}

/// An error whose code the client hides, or that of asking again in a way that shows it. Only where one lock was asked for: of several, each
/// is asked for alone after a failure.
async fn diagnosed<S: AsyncLockSession>(
    session: &mut S,
    round: &LockBatch,
    error: SessionError,
) -> SessionError {
    let (BatchMode::Execute, [step]) = (round.mode(), round.ops()) else {
        return error;
    };
    if !matches!(step.kind(), LockOpKind::Acquire { .. }) {
        return error;
    }
    let batch = Script::of_space(ScriptKind::RevealSqlState, step.key(), step.mode());
    match session.session_execute(&batch).await {
        Err(again) if again.code().is_some() || again.is_disconnected() => again,
        Err(_) | Ok(()) => error,
    }
}

/// Waits on the server.
async fn wait<P: AsyncLockPool>(
    pool: &P,
    conn: &mut Option<Owned<P::Connection>>,
    key: LockKey,
    options: &LockOptions,
) -> WaitOutcome {
    let session = match conn {
        Some(conn) => conn,
        None => match checkout(pool).await {
            Ok(checked_out) => conn.insert(checked_out),
            Err(error) => return WaitOutcome::Failed(pool_error(error).with_key(&key)),
        },
    };
    let snapshot = snapshot(&mut **session);
    let acquire = Acquire::new(key, options, LockScope::Session, snapshot);
    match drive(&mut **session, acquire).await {
        Ok(Acquired::Granted(grant)) => match grant.pid {
            Some(pid) => WaitOutcome::Granted { pid },
            None => WaitOutcome::Failed(LockError::new(LockErrorKind::Unsupported)),
        },
        Ok(Acquired::HeldElsewhere | Acquired::TimedOut) => WaitOutcome::TimedOut,
        // Whoever waits is told nothing of a session that was the locker's own affair.
        Err(error) if session.session_transaction_state().is_broken() => {
            WaitOutcome::Failed(LockError::new(LockErrorKind::Lost).with_source(error))
        }
        Err(error) => WaitOutcome::Failed(error),
    }
}

/// A connection that is ended when it is dropped, because locks may be held on it.
struct Owned<C: DerefMut<Target: AsyncLockSession + Sized>> {
    conn: C,
    in_use: bool,
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> Owned<C> {
    const fn new(conn: C) -> Self {
        Self { conn, in_use: true }
    }

    /// Nothing is held on it, so its pool may have it.
    fn give_back(mut self) {
        self.in_use = false;
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> Drop for Owned<C> {
    fn drop(&mut self) {
        if self.in_use {
            self.conn.session_start_terminate();
        }
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> Deref for Owned<C> {
    type Target = C::Target;

    fn deref(&self) -> &Self::Target {
        &self.conn
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> DerefMut for Owned<C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.conn
    }
}

/// What the core is told if the session is dropped where it runs: with its runtime.
struct Presence {
    hub: Arc<Hub>,
    id: SessionId,
    stage: Stage,
}

enum Stage {
    Opening,
    Open,
    Waiting,
    Gone,
}

impl Presence {
    fn tell(&self, happened: impl FnOnce(&mut Core<Reply>, Instant)) {
        self.hub.act(happened);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let id = self.id;
        let why = "the session was dropped where it ran: has the runtime ended?";
        let error = || LockError::new(LockErrorKind::Pool).with_context(why);
        match self.stage {
            Stage::Opening => self.tell(|core, now| core.on_opened(id, Err(error()), now)),
            Stage::Waiting => self.tell(|core, now| {
                core.on_wait_ended(id, WaitOutcome::Failed(error()), now);
                core.on_session_closed(id);
            }),
            Stage::Open => self.tell(|core, now| {
                let gone = SessionError::new(why).with_disconnected(true);
                core.on_batch_result(id, Err(gone), now);
                core.on_session_closed(id);
            }),
            Stage::Gone => {}
        }
    }
}
