//! `run`: a command under a lock.
//!
//! # Implementation details
//!
//! The command inherits a duplicate of the socket. The server ends the session when the last
//! duplicate is closed. So the lock is held as long as the command or one of its descendants lives,
//! even if this program is killed. If descendants still live after the command, this program exits
//! without a message to the server, which would end the session.

use std::env;
use std::io::{IsTerminal, stdin};
use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, LockErrorKind, LockKey, LockMode};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::arguments::{Global, Run};
use crate::child::{End, Program, Signals, Supervision, supervise};
use crate::connect::settings::Settings;
use crate::exit_code::Code;
use crate::failure::{Failure, causes};
use crate::lock_name::numbers;
use crate::output::{json, message};
use crate::session;

/// Environment variable with the locks of the surrounding `run` commands.
const HELD: &str = "ADVISORY_LOCK_HELD";
/// Time for the reply to the release.
const REPLY: Duration = Duration::from_secs(10);
/// Shortest time for the reply to a check.
const CHECK_REPLY: Duration = Duration::from_secs(2);
/// Time for a cancel request.
const CANCEL: Duration = Duration::from_millis(500);

pub(super) async fn run(arguments: &Run, global: &Global) -> Result<Code, Failure> {
    let key = arguments.lock.key()?;
    let name = arguments.lock.shown(&key);
    let held = held_with(&key, arguments.acquire.mode(), &name)?;
    let program = Program::of(arguments)?;
    let mut signals = Signals::install()?;
    let settings = Settings::of_process(global.database_url.as_deref())?;

    let doing = format!("run {name}");
    let opened = tokio::select! {
        biased;
        signal = signals.next() => return Ok(Code::of_signal(signal.as_raw())),
        opened = open(arguments, &settings, &doing) => opened?,
    };
    let canceller = opened.canceller(&settings);
    let crate::connect::Connection {
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
            let _ = timeout(CANCEL, canceller.cancel()).await;
            let _ = timeout(CANCEL, &mut task).await;
            return Ok(Code::of_signal(signal.as_raw()));
        }
        Ok(Ok(guard)) => guard,
        Ok(Err(error)) => return contended(arguments, global, error),
    };
    // It may have arrived with the grant.
    if let Some(signal) = signals.arrived().await {
        let _ = timeout(REPLY, guard.release()).await;
        return Ok(Code::of_signal(signal.as_raw()));
    }

    let session = prepare(&guard).await?;
    let token = match &arguments.token {
        Some(sequence) => Some(issue_token(&guard, sequence).await?),
        None => None,
    };
    let supervision = Supervision {
        variables: variables(&name, &key, arguments.acquire.mode(), session, token, held),
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
    let loss = loss(&guard, &mut task, session, arguments.check_interval);
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
        leave_lock(global, &end);
    }
    match timeout(REPLY, guard.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Ok(lost(arguments, &causes(&error))),
        Err(_) => return Ok(lost(arguments, "no reply to the release")),
    }
    drop(client);
    let _ = timeout(CANCEL, task).await;
    Ok(end.code())
}

/// Connects, and checks for a pooler.
async fn open(
    arguments: &Run,
    settings: &Settings,
    doing: &str,
) -> Result<crate::connect::Connection, Failure> {
    let mut connection = session::open_with(settings, doing).await?;
    if !arguments.acquire.no_pooler_check {
        session::require_dedicated_session(&mut connection, settings).await?;
    }
    Ok(connection)
}

/// Returns the exit code if the lock is held elsewhere, or the failure.
fn contended(
    arguments: &Run,
    global: &Global,
    error: advisory_locking::LockError,
) -> Result<Code, Failure> {
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
fn leave_lock(global: &Global, end: &End) -> ! {
    if !global.quiet {
        message("processes of the command still run: they keep the lock until they end");
    }
    std::process::exit(end.code().0.into())
}

/// Fails if a surrounding `run` holds the lock, for which this one would wait for ever. Returns the
/// value of [`HELD`] for the command.
fn held_with(key: &LockKey, mode: LockMode, name: &str) -> Result<String, Failure> {
    let entry = format!("{}/{}", numbers(key.raw()), json::mode(mode));
    let held = env::var(HELD).unwrap_or_default();
    let conflicts = held.split_whitespace().any(|held| {
        let (held_key, held_mode) = held.split_once('/').unwrap_or((held, ""));
        held_key == numbers(key.raw()) && !(mode == LockMode::Shared && held_mode == "shared")
    });
    if conflicts {
        let text = format!(
            "this command already runs under the lock {name:?} and would wait for itself; \
             unset {HELD} if that lock is in another database"
        );
        return Err(Failure::usage(text));
    }
    Ok(format!("{held} {entry}").trim().to_owned())
}

/// Returns the environment variables of the command.
fn variables(
    name: &str,
    key: &LockKey,
    mode: LockMode,
    session: i32,
    token: Option<i64>,
    held: String,
) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("ADVISORY_LOCK_NAME", name.replace('\0', "")),
        ("ADVISORY_LOCK_KEY", numbers(key.raw())),
        ("ADVISORY_LOCK_MODE", json::mode(mode).to_owned()),
        ("ADVISORY_LOCK_PID", session.to_string()),
        (HELD, held),
    ];
    variables.extend(token.map(|token| ("ADVISORY_LOCK_TOKEN", token.to_string())));
    variables
}

/// Returns the process id of the session, and switches [`idle_session_timeout`] off: it would end
/// the session while the command runs and this program has gone.
///
/// [`idle_session_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT
async fn prepare(client: &Client) -> Result<i32, Failure> {
    let statement = "SELECT pg_catalog.pg_backend_pid(), (SELECT pg_catalog.set_config(name, '0', false) \
                     FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'idle_session_timeout')";
    let messages = client.simple_query(statement).await?;
    let pid = first_number(&messages);
    pid.ok_or_else(|| Failure::new(Code::UNFIT, "the server returned no process id"))
}

/// Issues a fencing token, under the lock.
async fn issue_token(client: &Client, sequence: &str) -> Result<i64, Failure> {
    let statement = "SELECT pg_catalog.nextval($1::pg_catalog.text::pg_catalog.regclass)";
    let row = client.query_one(statement, &[&sequence]).await?;
    Ok(row.try_get(0)?)
}

/// Waits until the lock is lost, and returns the reason.
async fn loss(
    client: &Client,
    task: &mut JoinHandle<()>,
    session: i32,
    interval: Duration,
) -> String {
    let limit = interval.saturating_mul(2).clamp(CHECK_REPLY, REPLY);
    let check = async {
        loop {
            sleep(interval).await;
            let reply = client.simple_query("SELECT pg_catalog.pg_backend_pid()");
            match timeout(limit, reply).await {
                Ok(Ok(messages)) if first_number(&messages) == Some(session) => {}
                Ok(Ok(_)) => {
                    return "another session replied: is there a transaction pooler?".to_owned();
                }
                Ok(Err(error)) => return causes(&error),
                Err(_) => return format!("the server did not reply within {limit:?}"),
            }
        }
    };
    tokio::select! {
        _ = task => "the session ended".to_owned(),
        reason = check => reason,
    }
}

fn first_number(messages: &[SimpleQueryMessage]) -> Option<i32> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok()??.parse().ok(),
        _ => None,
    })
}
