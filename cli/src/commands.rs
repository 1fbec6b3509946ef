//! The commands of the program.

mod doctor;
mod key;
mod kill;
mod ls;
mod probe;
mod run;
mod shell;
mod watch;
mod who;

use clap::Parser;
use clap::error::ErrorKind;

use crate::arguments::{Arguments, Command};
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::message;

/// Runs the program, and returns its exit code.
pub(crate) fn run() -> Code {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let is_help = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return match (error.print(), is_help) {
                (Ok(()), true) => Code::SUCCESS,
                (Err(error), true) => Failure::from(error).code,
                (_, false) => Code::USAGE,
            };
        }
    };
    let result = match arguments.command {
        // These need no runtime.
        Command::Key(key) => key::run(&key, &arguments.global),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { directory } => shell::manual(directory.as_deref()),
        _ => on_runtime(arguments),
    };
    result.unwrap_or_else(|failure| {
        if !failure.text.is_empty() {
            message(&failure.text);
        }
        failure.code
    })
}

/// One thread is enough, and its only other task is the connection.
fn on_runtime(arguments: Arguments) -> Result<Code, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::OUTPUT, format_args!("cannot start: {error}")))?;
    let global = &arguments.global;
    runtime.block_on(async {
        match &arguments.command {
            Command::Run(run) => run::run(run, global).await,
            Command::Try(arguments) => probe::run_try(arguments, global).await,
            Command::Wait(arguments) => probe::run_wait(arguments, global).await,
            Command::Ls(arguments) => ls::run(arguments, global).await,
            Command::Who(lock) => who::run(lock, global).await,
            Command::Kill(arguments) => kill::run(arguments, global).await,
            Command::Doctor(arguments) => doctor::run(arguments, global).await,
            Command::Watch(arguments) => watch::run(arguments, global).await,
            Command::Key(_) | Command::Completions { .. } | Command::Man { .. } => {
                Ok(Code::SUCCESS)
            }
        }
    })
}
