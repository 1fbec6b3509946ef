//! `kill`: the end of the sessions that hold a lock.

use std::collections::BTreeSet;
use std::time::Duration;

use advisory_locking::AsyncAdvisoryLocking;
use tokio::time::{Instant, sleep};

use crate::arguments::{Global, Kill};
use crate::connect::Connection;
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::{json, message, print_line};
use crate::session;

/// Pause between two looks at `pg_locks`.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(arguments: &Kill, global: &Global) -> Result<Code, Failure> {
    let mut connection = session::open(global, "kill").await?;
    let pids = targets(arguments, &mut connection).await?;
    if pids.is_empty() && !global.quiet {
        message("no session holds the lock");
    }
    let (mut terminated, mut failure) = (Vec::new(), None::<Failure>);
    for pid in pids {
        match terminate(&connection, pid).await {
            Ok(()) => terminated.push(pid),
            Err(Failure { code, text }) => {
                // Each failure is shown; the last one is that of the program.
                let text = format!("pid {pid}: {text}");
                if let Some(earlier) = failure.replace(Failure { code, text }) {
                    message(&earlier.text);
                }
            }
        }
    }
    let ended = wait_for_end(&connection, &terminated, arguments.wait).await?;
    connection.end().await;
    if global.json {
        json::print_field("terminated", terminated.into())?;
    } else {
        for pid in &terminated {
            print_line(&format!("terminated pid {pid}"))?;
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if ended {
        return Ok(Code::SUCCESS);
    }
    let text = format!("the sessions still hold locks after {:?}", arguments.wait);
    Err(Failure::new(Code::CONFLICT, text))
}

/// Returns the sessions to end. A process id must be that of a session with a lock, because a
/// mistyped one is that of another session.
async fn targets(arguments: &Kill, connection: &mut Connection) -> Result<Vec<i32>, Failure> {
    let Some(pid) = arguments.pid else {
        let key = arguments.lock.key()?;
        let report = connection.client.advisory_lock_holders(&key).await?;
        let has_prepared = report
            .holders
            .iter()
            .any(|holder| holder.session.pid.is_none());
        if has_prepared {
            let text = "a prepared transaction holds the lock: COMMIT PREPARED or ROLLBACK PREPARED releases it";
            return Err(Failure::new(Code::DATABASE, text));
        }
        // A session that holds the lock in both modes is two holders.
        let pids = report
            .holders
            .iter()
            .filter_map(|holder| holder.session.pid);
        let pids: BTreeSet<i32> = pids.collect();
        return Ok(pids.into_iter().collect());
    };
    if hold_or_await(connection, &[pid]).await? {
        Ok(vec![pid])
    } else {
        let text = format!("pid {pid} neither holds nor awaits an advisory lock of this database");
        Err(Failure::usage(text))
    }
}

/// Returns whether one of the sessions holds or awaits an advisory lock of this database.
///
/// A report about all locks has at most 1,000 rows, and so might omit the session.
async fn hold_or_await(connection: &Connection, pids: &[i32]) -> Result<bool, Failure> {
    let statement = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks AS locks \
                     WHERE locks.locktype OPERATOR(pg_catalog.=) 'advisory' \
                     AND locks.pid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.int4[]) \
                     AND locks.database OPERATOR(pg_catalog.=) (SELECT own.datid \
                     FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS own))";
    let row = connection.client.query_one(statement, &[&pids]).await?;
    Ok(row.try_get(0)?)
}

/// Sends [`pg_terminate_backend`].
///
/// [`pg_terminate_backend`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
async fn terminate(connection: &Connection, pid: i32) -> Result<(), Failure> {
    let statement = "SELECT pg_catalog.pg_terminate_backend($1)";
    connection.client.query_one(statement, &[&pid]).await?;
    Ok(())
}

/// Waits until none of the sessions holds or awaits a lock.
async fn wait_for_end(
    connection: &Connection,
    pids: &[i32],
    limit: Duration,
) -> Result<bool, Failure> {
    let began = Instant::now();
    loop {
        if !hold_or_await(connection, pids).await? {
            return Ok(true);
        }
        if began.elapsed() >= limit {
            return Ok(false);
        }
        sleep(PAUSE).await;
    }
}
