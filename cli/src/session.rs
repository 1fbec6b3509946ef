//! A session on the server, as the commands use it.

use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, PoolingMode};
use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use crate::arguments::Global;
use crate::connect::settings::Settings;
use crate::connect::{Connection, connect};
use crate::failure::Failure;

/// Time for the end of a connection after its last statement.
const END: Duration = Duration::from_secs(1);

/// The longest [`application_name`], in bytes.
///
/// [`application_name`]: https://www.postgresql.org/docs/current/runtime-config-logging.html#GUC-APPLICATION-NAME
const APPLICATION_BYTES: usize = 63;

/// Opens a connection. `doing` is part of its application name.
pub(crate) async fn open(global: &Global, doing: &str) -> Result<Connection, Failure> {
    let settings = Settings::of_process(global.database_url.as_deref())?;
    open_with(&settings, doing).await
}

pub(crate) async fn open_with(settings: &Settings, doing: &str) -> Result<Connection, Failure> {
    connect(settings, &application_name(doing)).await
}

/// Returns `advisory-lock DOING`, cut at a character.
fn application_name(doing: &str) -> String {
    let mut name = format!("advisory-lock {doing}");
    let end = (0..=APPLICATION_BYTES)
        .rev()
        .find(|end| name.is_char_boundary(*end));
    if name.len() > APPLICATION_BYTES {
        name.truncate(end.unwrap_or(0));
    }
    name
}

/// Fails if a transaction pooler or a load balancer is between this program and the server.
///
/// `blocks` is `true` if the program waits in the server's queue.
pub(crate) async fn require_dedicated_session(
    connection: &mut Connection,
    settings: &Settings,
    blocks: bool,
) -> Result<(), Failure> {
    let mode = pooling_mode(connection, settings).await?;
    match mode {
        // Such a pooler supports a program that polls.
        PoolingMode::Pinned if !blocks => Ok(()),
        mode => mode.require_dedicated_sessions().map_err(Failure::from),
    }
}

/// Detects a transaction pooler, with a second connection.
pub(crate) async fn pooling_mode(
    connection: &mut Connection,
    settings: &Settings,
) -> Result<PoolingMode, Failure> {
    let mut other = open_with(settings, "pooler check").await?;
    let mode = connection.client.detect_pooler(&mut other.client).await?;
    other.end().await;
    Ok(mode)
}

impl Connection {
    /// Closes the connection, and waits for its last message.
    pub(crate) async fn end(self) {
        let Self { client, task, .. } = self;
        drop(client);
        let _ = timeout(END, task).await;
    }

    /// Runs a statement that returns rows of texts.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let messages = self.client.simple_query(sql).await?;
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                let texts = (0..row.len()).map(|column| row.get(column).map(str::to_owned));
                rows.push(texts.collect());
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn application_name_ends_at_a_character() {
        let name = application_name(&"ü".repeat(40));
        assert_eq!(name.len(), 62);
        assert!(name.ends_with('ü'));
        assert_eq!(application_name("ls"), "advisory-lock ls");
    }
}
