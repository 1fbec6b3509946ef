//! `run`: a command under a lock.
//!
//! # Implementation details
//!
//! The command inherits a duplicate of the socket. The server ends the session when the last
//! duplicate is closed. So the lock is held as long as the command or one of its descendants lives,
//! even if this program is killed. If descendants still live after the command, this program exits
//! without a message to the server, which would end the session.

pub(super) mod environment;
mod session;

use std::io::{IsTerminal, stdin};
use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, LockError, LockErrorKind};
use tokio::time::timeout;

use crate::arguments::{Global, Run};
use crate::child::{End, Program, Signals, Supervision, supervise};
use crate::connect::Connection;
use crate::connect::settings::Settings;
use crate::exit_code::Code;
use crate::failure::{Failure, causes};
use crate::output::message;
use crate::session::{open_with, require_dedicated_session};

/// Time for the reply to the release.
const REPLY: Duration = Duration::from_secs(10);
/// Time for the last messages of a program that a signal ends.
pub(super) const LAST_REPLY: Duration = Duration::from_millis(500);

/// A granted lock.
#[derive(Clone, Copy, Debug)]
struct Grant {
    /// The process id of the session.
    session: i32,
    /// The fencing token.
    token: Option<i64>,
}

pub(super) async fn run(arguments: &Run, global: &Global) -> Result<Code, Failure> {
    let key = arguments.lock.key()?;
    let name = arguments.lock.shown(&key);
    let held = environment::held_with(&key, arguments.acquire.mode(), &name)?;
    let program = Program::of(arguments)?;
    let mut signals = Signals::install()?;
    let settings = Settings::of_process(global.database_url.as_deref())?;

    let doing = format!("run {name}");
    let opened = tokio::select! {
        biased;
        signal = signals.next() => return Ok(signals.end_by(signal.as_raw()).await),
        opened = open(arguments, &settings, &doing) => opened?,
    };
    let canceller = opened.canceller(&settings);
    let Connection {
        mut client,
        mut task,
        socket,
        ..
    } = opened;

    let options = arguments.acquire.options(arguments.limit());
    let guard = match tokio::select! {
        biased;
        signal = signals.next() => Err(signal),
        acquired = client.acquire_advisory_lock(&key, options) => Ok(acquired),
    } {
        Err(signal) => {
            // The dropped call has closed the client, which ends the wait on the server late.
            let _ = timeout(LAST_REPLY, canceller.cancel()).await;
            let _ = timeout(LAST_REPLY, &mut task).await;
            return Ok(signals.end_by(signal.as_raw()).await);
        }
        Ok(Ok(guard)) => guard,
        Ok(Err(error)) => return contended(arguments, global, error),
    };
    // A signal may have arrived with the grant. The command must not start then.
    let grant = match tokio::select! {
        biased;
        signal = signals.next() => Err(signal),
        prepared = session::prepare(&guard, arguments.token.as_deref()) => Ok(prepared?),
    } {
        Ok(grant) => signals.arrived().await.map_or(Ok(grant), Err),
        Err(signal) => Err(signal),
    };
    let grant = match grant {
        Ok(grant) => grant,
        Err(signal) => {
            let _ = timeout(LAST_REPLY, guard.release()).await;
            return Ok(signals.end_by(signal.as_raw()).await);
        }
    };
    let supervision = Supervision {
        variables: environment::variables(&name, &key, arguments.acquire.mode(), grant, held),
        socket: if arguments.close {
            None
        } else {
            let socket = rustix::io::dup(&socket);
            Some(socket.map_err(|error| Failure::new(Code::OUTPUT, error))?)
        },
        foreground: arguments.foreground || stdin().is_terminal(),
        wait_for_descendants: arguments.wait_for_descendants,
        kill_after: arguments.kill_after,
    };
    let loss = session::loss(&guard, &mut task, grant.session, arguments.check_interval);
    let end = match supervise(&program, supervision, &mut signals, loss).await {
        Ok(end) => end,
        Err(failure) => {
            let _ = timeout(REPLY, guard.release()).await;
            return Err(failure);
        }
    };
    if end.was_lost {
        return Ok(Code(arguments.lost_exit_code));
    }
    if end.has_descendants {
        // No release reports a loss that the last check did not see.
        if let Err(reason) = session::check(&guard, grant.session, REPLY).await {
            return Ok(lost(arguments, &reason));
        }
        leave_lock(global, &end, &mut signals).await;
    }
    match timeout(REPLY, guard.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Ok(lost(arguments, &causes(&error))),
        Err(_) => return Ok(lost(arguments, "no reply to the release")),
    }
    drop(client);
    let _ = timeout(LAST_REPLY, task).await;
    Ok(end.code(&mut signals).await)
}

/// Connects, and checks for a pooler.
async fn open(arguments: &Run, settings: &Settings, doing: &str) -> Result<Connection, Failure> {
    let mut connection = open_with(settings, doing).await?;
    if !arguments.acquire.no_pooler_check {
        let blocks = arguments.acquire.blocks(arguments.limit());
        require_dedicated_session(&mut connection, settings, blocks).await?;
    }
    Ok(connection)
}

/// Returns the exit code if the lock is held elsewhere, or the failure.
fn contended(arguments: &Run, global: &Global, error: LockError) -> Result<Code, Failure> {
    let is_contended = matches!(
        error.kind(),
        LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut
    );
    let failure = Failure::from(error);
    if !is_contended {
        return Err(failure);
    }
    if arguments.skip {
        if !global.quiet {
            message(&format!("skipped: {}", failure.text));
        }
        return Ok(Code::SUCCESS);
    }
    Err(Failure::new(
        Code(arguments.conflict_exit_code),
        failure.text,
    ))
}

fn lost(arguments: &Run, reason: &str) -> Code {
    message(&format!("lock lost: {reason}"));
    Code(arguments.lost_exit_code)
}

/// Exits with the command's code. The descriptors of the descendants keep the session, so nothing
/// here is dropped.
async fn leave_lock(global: &Global, end: &End, signals: &mut Signals) -> ! {
    if !global.quiet {
        message("processes of the command still run: they keep the lock until they end");
    }
    std::process::exit(end.code(signals).await.0.into())
}
