//! Reports about locks as text: `ls`, `who` and `watch`.

use advisory_locking::{LockHolder, LockReport, LockWaiter, SessionInfo};

use super::table::Table;
use super::{Colour, Terminal, json, printable};
use crate::duration::Shown;
use crate::lock_name::numbers;

/// Returns one line for each session of a lock, for `who`.
pub(crate) fn of_lock(report: &LockReport, name: &str, terminal: Terminal) -> String {
    let mut text = format!("{}   key {}", printable(name), numbers(report.key));
    if report.holders.is_empty() && report.waiters.is_empty() {
        text.push_str("\nnot held");
        return text;
    }
    let mut table = Table::default();
    for holder in &report.holders {
        table.add(holder_cells(holder));
    }
    for waiter in &report.waiters {
        table.add(waiter_cells(waiter));
    }
    text.push('\n');
    text.push_str(&table.render(terminal, |cell| match cell {
        "HELD" => Some(Colour::Green),
        "WAITING" => Some(Colour::Yellow),
        _ => None,
    }));
    if let Some(pid) = report.holders.iter().find_map(|holder| holder.session.pid) {
        text.push_str(&format!(
            "\nTo end the holder: advisory-lock kill --pid {pid}"
        ));
    }
    text
}

fn holder_cells(holder: &LockHolder) -> [String; 7] {
    let held = holder.session.held_at_least();
    // The lock is not older than the session. The checks of `run` keep the least time short.
    let details = holder.session.details.as_ref();
    let age = details.and_then(|details| details.session_age);
    let times = [
        held.map(|held| format!("at least {}", Shown(held))),
        age.map(|age| format!("session of {}", Shown(age))),
    ];
    [
        "HELD".to_owned(),
        pid(&holder.session),
        session_name(&holder.session),
        json::mode(holder.mode).to_owned(),
        times.into_iter().flatten().collect::<Vec<_>>().join(", "),
        state(&holder.session),
        client(&holder.session),
    ]
}

fn waiter_cells(waiter: &LockWaiter) -> [String; 7] {
    let blocked_by: Vec<String> = waiter.blocked_by.iter().map(i32::to_string).collect();
    let behind = if blocked_by.is_empty() {
        String::new()
    } else {
        format!("behind {}", blocked_by.join(", "))
    };
    [
        "WAITING".to_owned(),
        pid(&waiter.session),
        session_name(&waiter.session),
        json::mode(waiter.mode).to_owned(),
        waiter
            .waited
            .map_or_else(String::new, |waited| Shown(waited).to_string()),
        behind,
        client(&waiter.session),
    ]
}

/// Returns one line for each lock, for `ls`. `name_of` returns the name of a key.
pub(crate) fn of_locks(
    reports: &[LockReport],
    name_of: impl Fn(&LockReport) -> Option<String>,
    terminal: Terminal,
) -> String {
    let mut table = Table::default();
    table.add(
        [
            "KEY",
            "NAME",
            "MODE",
            "HOLDER",
            "APPLICATION",
            "HELD AT LEAST",
            "WAITERS",
        ]
        .map(str::to_owned),
    );
    for report in reports {
        let first = report.holders.first();
        let others = report.holders.len().saturating_sub(1);
        let session = first.map(|holder| &holder.session);
        let more = if others > 0 {
            format!(" +{others}")
        } else {
            String::new()
        };
        let held = session.and_then(SessionInfo::held_at_least);
        table.add([
            numbers(report.key),
            name_of(report).map_or_else(|| "-".to_owned(), |name| printable(&name)),
            first
                .map_or("-", |holder| json::mode(holder.mode))
                .to_owned(),
            session.map_or_else(|| "-".to_owned(), pid) + &more,
            session.map_or_else(String::new, session_name),
            held.map_or_else(|| "-".to_owned(), |held| Shown(held).to_string()),
            report.waiters.len().to_string(),
        ]);
    }
    table.render(terminal, |_| None)
}

fn pid(session: &SessionInfo) -> String {
    session.pid.map_or_else(
        || "prepared transaction".to_owned(),
        |pid| format!("pid {pid}"),
    )
}

/// Returns the application name, or else the role.
fn session_name(session: &SessionInfo) -> String {
    let mut names = session.application.iter().chain(&session.user);
    let name = names.find(|name| !name.is_empty());
    name.map_or_else(String::new, |name| printable(name))
}

fn state(session: &SessionInfo) -> String {
    let Some(details) = &session.details else {
        return "details hidden".to_owned();
    };
    let state = details.state.as_deref().map(printable).unwrap_or_default();
    match details.transaction_age {
        Some(age) => format!("{state}, transaction of {}", Shown(age)),
        None => format!("{state}, not in a transaction"),
    }
}

fn client(session: &SessionInfo) -> String {
    let details = session.details.as_ref();
    details
        .and_then(|details| details.client_address.as_deref())
        .map(printable)
        .unwrap_or_default()
}
