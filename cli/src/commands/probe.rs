//! `try` and `wait`: the lock is acquired and released at once.

use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, LockErrorKind};
use tokio::time::timeout;

use super::run::LAST_REPLY;
use super::run::environment::held_with;
use crate::arguments::{Acquire, Global, Try, Wait};
use crate::child::Signals;
use crate::connect::Canceller;
use crate::connect::settings::Settings;
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::lock_name::LockName;
use crate::output::{json, message};
use crate::session;

pub(super) async fn run_try(arguments: &Try, global: &Global) -> Result<Code, Failure> {
    probe(
        &arguments.lock,
        &arguments.acquire,
        Some(Duration::ZERO),
        "try",
        global,
        &mut None,
    )
    .await
}

pub(super) async fn run_wait(arguments: &Wait, global: &Global) -> Result<Code, Failure> {
    let (lock, acquire) = (&arguments.lock, &arguments.acquire);
    let key = lock.key()?;
    held_with(&key, acquire.mode(), &lock.shown(&key))?;
    // The kernel ignores a signal without a handler to the process 1 of a container.
    let mut signals = Signals::install()?;
    let mut canceller = None;
    let signal = tokio::select! {
        biased;
        signal = signals.next() => signal,
        result = probe(lock, acquire, arguments.wait, "wait", global, &mut canceller) => {
            return result;
        }
    };
    // PostgreSQL 13 would keep the wait in its queue until the lock is granted.
    if let Some(canceller) = canceller {
        let _ = timeout(LAST_REPLY, canceller.cancel()).await;
    }
    Ok(signals.end_by(signal.as_raw()).await)
}

/// Acquires and releases the lock. Before it waits, it stores a handle that cancels the wait.
async fn probe(
    lock: &LockName,
    acquire: &Acquire,
    limit: Option<Duration>,
    doing: &str,
    global: &Global,
    canceller: &mut Option<Canceller>,
) -> Result<Code, Failure> {
    let key = lock.key()?;
    let settings = Settings::of_process(global.database_url.as_deref())?;
    let doing = format!("{doing} {}", lock.shown(&key));
    let mut connection = session::open_with(&settings, &doing).await?;
    if !acquire.no_pooler_check {
        let blocks = acquire.blocks(limit);
        session::require_dedicated_session(&mut connection, &settings, blocks).await?;
    }
    *canceller = Some(connection.canceller(&settings));
    let is_free = match connection
        .client
        .acquire_advisory_lock(&key, acquire.options(limit))
        .await
    {
        Ok(guard) => {
            guard.release().await?;
            true
        }
        Err(error)
            if matches!(
                error.kind(),
                LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut
            ) =>
        {
            if !global.quiet && !global.json {
                message(&Failure::from(error).text);
            }
            false
        }
        Err(error) => return Err(error.into()),
    };
    connection.end().await;
    if global.json {
        let mut object = json::key(key.raw());
        object.insert("free".to_owned(), is_free.into());
        json::print(object)?;
    }
    Ok(if is_free {
        Code::SUCCESS
    } else {
        Code::CONFLICT
    })
}
