//! `ls`: all advisory locks of the database.

use std::collections::BTreeMap;
use std::fs;

use advisory_locking::{AsyncAdvisoryLocking, LockKey, LockReport, RawLockKey};
use serde_json::Value;

use crate::arguments::{Global, Ls};
use crate::connect::Connection;
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::{Terminal, json, print_line, report};
use crate::session;

pub(super) async fn run(arguments: &Ls, global: &Global) -> Result<Code, Failure> {
    let names = Names::read(arguments)?;
    let mut connection = session::open(global, "ls").await?;
    let text = list(arguments, &names, &mut connection, global).await?;
    connection.end().await;
    print_line(&text)?;
    Ok(Code::SUCCESS)
}

/// Returns the text of the locks that the arguments select.
pub(super) async fn list(
    arguments: &Ls,
    names: &Names,
    connection: &mut Connection,
    global: &Global,
) -> Result<String, Failure> {
    let reports = connection.client.advisory_locks().await?;
    let selected: Vec<LockReport> = reports
        .into_iter()
        .filter(|report| !arguments.held || !report.holders.is_empty())
        .filter(|report| !arguments.waiting || !report.waiters.is_empty())
        .collect();
    if global.json {
        let locks = selected
            .iter()
            .map(|report| json::report(report, names.of(report)));
        return Ok(json::field("locks", locks.collect::<Vec<Value>>().into()));
    }
    let name_of = |report: &LockReport| names.of(report).map(str::to_owned);
    Ok(report::of_locks(&selected, name_of, Terminal::detect()))
}

/// Names of keys, because a key cannot be converted to its name.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<RawLockKey, String>);

impl Names {
    pub(super) fn read(arguments: &Ls) -> Result<Self, Failure> {
        let Some(file) = &arguments.names else {
            return Ok(Self::default());
        };
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))?;
        let names = text.lines().filter(|line| !line.is_empty());
        Ok(Self(
            names
                .map(|name| (LockKey::from(name).raw(), name.to_owned()))
                .collect(),
        ))
    }

    fn of(&self, report: &LockReport) -> Option<&str> {
        self.0.get(&report.key).map(String::as_str)
    }
}
