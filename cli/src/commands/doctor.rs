//! `doctor`: checks of the server and of the connection.

mod limits;
mod permissions;
mod server;

use serde_json::{Value, json};

use crate::arguments::{Doctor, Global};
use crate::connect::settings::Settings;
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Colour, Terminal, json as output, print_line, printable};
use crate::session;

/// Result of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Grade {
    Ok,
    /// Locks work, but not in every case.
    Warn,
    /// Locks do not work.
    Bad,
    /// The check failed.
    Unknown,
}

impl Grade {
    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Unknown => "?",
        }
    }
}

/// A line of the report.
#[derive(Debug)]
struct Finding {
    grade: Grade,
    check: &'static str,
    text: String,
}

impl Finding {
    fn new(grade: Grade, check: &'static str, text: impl Into<String>) -> Self {
        Self {
            grade,
            check,
            text: printable(&text.into()),
        }
    }

    /// The check could not be made.
    fn unknown(check: &'static str, failure: &Failure) -> Self {
        Self::new(Grade::Unknown, check, failure.text.clone())
    }
}

pub(super) async fn run(arguments: &Doctor, global: &Global) -> Result<Code, Failure> {
    let settings = Settings::of_process(global.database_url.as_deref())?;
    let mut connection = session::open_with(&settings, "doctor").await?;
    let mut findings = server::check(&mut connection).await;
    if !arguments.no_pooler_check {
        findings.push(server::check_pooler(&mut connection, &settings).await);
    }
    findings.extend(server::address_hint(&settings));
    findings.extend(permissions::check(&connection, &settings).await);
    findings.extend(limits::check(&connection).await);
    connection.end().await;

    if global.json {
        let findings = findings.iter().map(|finding| {
            json!({"grade": finding.grade.label(), "check": finding.check, "text": finding.text})
        });
        output::print_field("findings", findings.collect::<Vec<Value>>().into())?;
    } else {
        let mut table = Table::default();
        for finding in &findings {
            table.add([
                finding.grade.label().to_owned(),
                finding.check.to_owned(),
                finding.text.clone(),
            ]);
        }
        // The reasons are read in full, so that the lines are not cut.
        let terminal = Terminal::detect().of_any_width();
        print_line(&table.render(terminal, |grade| match grade {
            "ok" => Some(Colour::Green),
            "bad" => Some(Colour::Red),
            _ => Some(Colour::Yellow),
        }))?;
    }
    let is_bad = findings.iter().any(|finding| finding.grade == Grade::Bad);
    Ok(if is_bad { Code::FAULT } else { Code::SUCCESS })
}
