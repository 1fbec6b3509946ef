//! Statements on the session of the lock, and its loss.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Grant;
use crate::exit_code::Code;
use crate::failure::{Failure, causes};

/// Shortest time for the reply to a check.
const CHECK_REPLY: Duration = Duration::from_secs(2);

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
async fn issue_token(client: &Client, sequence: &str) -> Result<i64, Failure> {
    let statement = "SELECT pg_catalog.nextval($1::pg_catalog.text::pg_catalog.regclass)";
    let row = client.query_one(statement, &[&sequence]).await?;
    Ok(row.try_get(0)?)
}

/// Waits until the lock is lost, and returns the reason.
pub(super) async fn loss(
    client: &Client,
    task: &mut JoinHandle<()>,
    session: i32,
    interval: Duration,
) -> String {
    let limit = interval.saturating_mul(2).max(CHECK_REPLY);
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
