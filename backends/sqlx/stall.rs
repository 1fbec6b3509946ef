//! Detection of a session that will send nothing more.
//!
//! A call that needs the connection waits for the reply in flight. Some replies never arrive:
//!
//! * The dropped statement was a `COPY … FROM STDIN`, and the server waits for the client's data.
//! * The future of a statement was leaked, or its owner polls it no more, so no task reads the
//!   reply.
//!
//! In each case the server process waits for the client. That is visible to another connection as
//! the [wait event `ClientRead`][wait-events].
//!
//! [wait-events]: https://www.postgresql.org/docs/current/monitoring-stats.html#WAIT-EVENT-TABLE

use std::time::Duration;

use ::sqlx::PgPool;
use tokio::runtime::Handle;

use super::terminate::{Found, find_session};
use crate::backends::RuntimeBound;

/// Pause before each check. It doubles until the session is found waiting.
const INITIAL_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Waits until the session is found waiting for its client twice in a row.
///
/// Once is not enough: the reply may have been on its way. A session that cannot be found, because
/// it has ended or the server cannot be reached, counts as waiting. If the server has no room for
/// another session, the check counts as not made. `pid` returns the process id. Without one there
/// is no check. The checks open connections, so they run in the runtime.
pub(crate) async fn stalled(
    pool: &PgPool,
    runtime: Option<Handle>,
    pid: impl Fn() -> Option<i32> + Send,
) {
    let checks = async move {
        let mut pause = INITIAL_PAUSE;
        let mut found_waiting = false;
        loop {
            futures_timer::Delay::new(pause).await;
            let Some(pid) = pid() else { continue };
            match find_session(pool, &is_running(pid)).await {
                Found::No if found_waiting => return,
                Found::No => {
                    found_waiting = true;
                    pause = INITIAL_PAUSE;
                }
                Found::Yes | Found::Unknown => {
                    found_waiting = false;
                    pause = MAX_PAUSE.min(pause * 2);
                }
            }
        }
    };
    RuntimeBound::new(Box::pin(checks), runtime, drop).await;
}

/// Returns the query that finds the session unless it waits for a message of its client.
fn is_running(pid: i32) -> String {
    format!(
        "SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) {pid} \
         AND COALESCE(wait_event, '') OPERATOR(pg_catalog.<>) 'ClientRead'"
    )
}
