//! `completions` and `man`.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::arguments::Arguments;
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::print_bytes;

pub(super) fn completions(shell: Shell) -> Result<Code, Failure> {
    let mut script = Vec::new();
    generate(
        shell,
        &mut Arguments::command(),
        "advisory-lock",
        &mut script,
    );
    print_bytes(&script)?;
    Ok(Code::SUCCESS)
}

/// Prints the page of the program, or writes the pages of all commands.
pub(super) fn manual(directory: Option<&Path>) -> Result<Code, Failure> {
    let mut command = Arguments::command();
    command.build();
    let Some(directory) = directory else {
        print_bytes(&page(command)?)?;
        return Ok(Code::SUCCESS);
    };
    let subcommands = command.get_subcommands().map(|subcommand| {
        let name = format!("advisory-lock-{}", subcommand.get_name());
        subcommand.clone().name(name)
    });
    for command in subcommands.collect::<Vec<_>>().into_iter().chain([command]) {
        let file = directory.join(format!("{}.1", command.get_name()));
        fs::write(&file, page(command)?).map_err(|error| {
            Failure::new(Code::OUTPUT, format_args!("{}: {error}", file.display()))
        })?;
    }
    Ok(Code::SUCCESS)
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}
