//! Statements on the session of the lock, and its loss.

use std::pin::pin;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Grant;
use crate::exit_code::Code;
use crate::failure::{Failure, causes};

/// Shortest time for the reply to a check.
const CHECK_REPLY: Duration = Duration::from_secs(2);
/// Time to read a reply that has arrived.
const READ: Duration = Duration::from_millis(100);

/// Prepares the session for the command, and issues a fencing token of the sequence.
pub(super) async fn prepare(client: &Client, sequence: Option<&str>) -> Result<Grant, Failure> {
    let session = keep_session(client).await?;
    let token = match sequence {
        Some(sequence) => Some(issue_token(client, sequence).await?),
        None => None,
    };
    Ok(Grant { session, token })
}

/// Returns the process id of the session, and switches [`idle_session_timeout`] off: it would end
/// the session while the command runs and this program has gone.
///
/// [`idle_session_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT
async fn keep_session(client: &Client) -> Result<i32, Failure> {
    let statement = "SELECT pg_catalog.pg_backend_pid(), (SELECT pg_catalog.set_config(name, '0', false) \
                     FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'idle_session_timeout')";
    let messages = client.simple_query(statement).await?;
    let pid = first_number(&messages);
    pid.ok_or_else(|| Failure::new(Code::UNFIT, "the server returned no process id"))
}

/// Issues a fencing token, under the lock.
///
/// The sequence must count up. With a [cache], a session of a pooler could issue an old number.
///
/// [cache]: https://www.postgresql.org/docs/current/sql-createsequence.html#SQL-CREATESEQUENCE-NOTES
async fn issue_token(client: &Client, sequence: &str) -> Result<i64, Failure> {
    let statement = "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_sequence \
                     WHERE seqrelid OPERATOR(pg_catalog.=) sequence \
                     AND seqcache OPERATOR(pg_catalog.=) 1 \
                     AND seqincrement OPERATOR(pg_catalog.>) 0 AND NOT seqcycle) \
                     THEN pg_catalog.nextval(sequence) END \
                     FROM (SELECT $1::pg_catalog.text::pg_catalog.regclass AS sequence) AS named";
    let row = client.query_one(statement, &[&sequence]).await?;
    let token: Option<i64> = row.try_get(0)?;
    token.ok_or_else(|| {
        Failure::usage(format_args!(
            "{sequence}: fencing tokens need a sequence that counts up, with CACHE 1 and NO CYCLE"
        ))
    })
}

/// Returns the reason if the session of the lock does not reply within the limit, or has ended.
pub(super) async fn check(client: &Client, session: i32, limit: Duration) -> Result<(), String> {
    let mut reply = pin!(client.simple_query("SELECT pg_catalog.pg_backend_pid()"));
    let mut replied = timeout(limit, &mut reply).await;
    if replied.is_err() {
        // The limit may have passed while this process was stopped.
        replied = timeout(READ, reply).await;
    }
    match replied {
        Ok(Ok(messages)) if first_number(&messages) == Some(session) => Ok(()),
        Ok(Ok(_)) => Err("another session replied: is there a transaction pooler?".to_owned()),
        Ok(Err(error)) => Err(causes(&error)),
        Err(_) => Err(format!("the server did not reply within {limit:?}")),
    }
}

/// Waits until the lock is lost, and returns the reason.
pub(super) async fn loss(
    client: &Client,
    task: &mut JoinHandle<Option<String>>,
    session: i32,
    interval: Duration,
) -> String {
    let limit = interval.saturating_mul(2).max(CHECK_REPLY);
    let check = async {
        loop {
            sleep(interval).await;
            if let Err(reason) = check(client, session, limit).await {
                return reason;
            }
        }
    };
    tokio::select! {
        ended = task => match ended {
            Ok(Some(reason)) => format!("the session ended: {reason}"),
            _ => "the session ended".to_owned(),
        },
        reason = check => reason,
    }
}

fn first_number(messages: &[SimpleQueryMessage]) -> Option<i32> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok()??.parse().ok(),
        _ => None,
    })
}
