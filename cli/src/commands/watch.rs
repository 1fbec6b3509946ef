//! `watch`: the list of locks, again and again.

use tokio::time::sleep;

use super::ls;
use crate::arguments::{Global, Watch};
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::{Terminal, print_line};
use crate::session;

/// Moves to the first line, and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) async fn run(arguments: &Watch, global: &Global) -> Result<Code, Failure> {
    let names = ls::Names::read(&arguments.ls)?;
    let mut connection = session::open(global, "watch").await?;
    let redraws = Terminal::detect().has_screen && !global.json;
    let mut count = 0;
    loop {
        let text = ls::list(&arguments.ls, &names, &mut connection, global).await?;
        // With the text, so that the screen is never empty while the server replies.
        let clear = if redraws { CLEAR } else { "" };
        print_line(&format!("{clear}{text}"))?;
        count += 1;
        if arguments.count.is_some_and(|limit| count >= limit) {
            connection.end().await;
            return Ok(Code::SUCCESS);
        }
        sleep(arguments.interval).await;
    }
}
