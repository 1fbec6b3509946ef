//! The program `advisory-lock` against a server.
//!
//! | module | subject |
//! |---|---|
//! | `bad_input` | exit codes and texts for wrong arguments and unfit servers |
//! | `connection` | URLs, environment, password file |
//! | `doctor` | checks of servers and poolers |
//! | `help` | help, completions and the manual |
//! | `inheritance` | the lock of a command whose wrapper was killed |
//! | `keys` | keys of all schemes, without a server |
//! | `loss` | the reaction to a lost session |
//! | `reports` | `ls`, `who`, `kill`, `watch` |
//! | `run` | exit codes and the environment of a command |
//! | `signals` | a signal in each phase |
//! | `terminal` | a command in the foreground of a terminal; the screen of `watch` |
//! | `tls` | `sslmode` |
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod connection;
mod doctor;
mod help;
mod inheritance;
mod keys;
mod loss;
mod processes;
mod program;
mod reports;
mod run;
mod signals;
mod terminal;
mod tls;
