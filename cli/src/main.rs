//! `advisory-lock`: PostgreSQL advisory locks on the command line.
//!
//! The keys are those of the library, so a shell job and a Rust service exclude each other.

#[cfg(not(unix))]
compile_error!("advisory-lock needs Unix: its locks are inherited with a file descriptor");

mod arguments;
mod child;
mod commands;
mod connect;
mod duration;
mod exit_code;
mod failure;
mod lock_name;
mod output;
mod scheme;
mod session;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::run().into()
}
