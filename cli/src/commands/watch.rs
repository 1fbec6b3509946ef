//! `watch`: the list of locks, again and again.

use std::io::IsTerminal;

use tokio::time::sleep;

use super::ls;
use crate::arguments::{Global, Watch};
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::print_bytes;
use crate::session;

/// Moves to the first line, and clears the screen.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

pub(super) async fn run(arguments: &Watch, global: &Global) -> Result<Code, Failure> {
    let names = ls::Names::read(&arguments.ls)?;
    let mut connection = session::open(global, "watch").await?;
    let redraws = std::io::stdout().is_terminal() && !global.json;
    let mut count = 0;
    loop {
        if redraws {
            print_bytes(CLEAR)?;
        }
        ls::print(&arguments.ls, &names, &mut connection, global).await?;
        count += 1;
        if arguments.count.is_some_and(|limit| count >= limit) {
            connection.end().await;
            return Ok(Code::SUCCESS);
        }
        sleep(arguments.interval).await;
    }
}
