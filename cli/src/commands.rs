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
use tokio::runtime::{Builder, Runtime};

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
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::OUTPUT, format_args!("cannot start: {error}")))?;
    let global = &arguments.global;
    run_on(runtime, async {
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

/// Runs a command to its end. A drop of the runtime would wait for the resolver of host names, also
/// after a signal.
fn run_on<T>(runtime: Runtime, command: impl Future<Output = T>) -> T {
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn end_does_not_wait_for_the_resolver() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let (started, is_started) = channel();
        let (ends, end) = channel::<()>();
        run_on(runtime, async {
            tokio::task::spawn_blocking(move || {
                started.send(()).unwrap();
                let _ = end.recv_timeout(Duration::from_secs(60));
            });
            is_started.recv().unwrap();
        });
        // The receiver lives, so its thread does.
        ends.send(()).unwrap();
    }
}
