//! `who`: the holders and waiters of a lock.

use advisory_locking::AsyncAdvisoryLocking;

use crate::arguments::Global;
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::lock_name::LockName;
use crate::output::{Terminal, json, print_line, report};
use crate::session;

pub(super) async fn run(lock: &LockName, global: &Global) -> Result<Code, Failure> {
    let key = lock.key()?;
    let mut connection = session::open(global, "who").await?;
    let found = connection.client.advisory_lock_holders(&key).await?;
    connection.end().await;
    let name = lock.shown(&key);
    if global.json {
        json::print_field("lock", json::report(&found, Some(&name)))?;
    } else {
        print_line(&report::of_lock(&found, &name, Terminal::detect()))?;
    }
    Ok(Code::SUCCESS)
}
