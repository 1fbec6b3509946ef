//! `watch`: the list of locks, again and again.

use rustix::process::{Pid, getpid};
use tokio::time::sleep;

use super::ls;
use crate::arguments::{Global, Watch};
use crate::child::Signals;
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::{Terminal, print_line};
use crate::session;

pub(super) async fn run(arguments: &Watch, global: &Global) -> Result<Code, Failure> {
    if getpid() != Pid::INIT {
        return redraw(arguments, global).await;
    }
    // The kernel ignores a signal without a handler to the process 1 of a container.
    let mut signals = Signals::install()?;
    tokio::select! {
        biased;
        signal = signals.next() => Ok(signals.end_by(signal.as_raw()).await),
        result = redraw(arguments, global) => result,
    }
}

async fn redraw(arguments: &Watch, global: &Global) -> Result<Code, Failure> {
    let names = ls::Names::read(&arguments.ls)?;
    let mut connection = session::open(global, "watch").await?;
    let mut count = 0;
    loop {
        let text = ls::list(&arguments.ls, &names, &mut connection, global).await?;
        // Cleared with the text, so that the screen is never empty while the server replies. The
        // size of the terminal may have changed.
        if global.json {
            print_line(&text)?;
        } else {
            print_line(&Terminal::detect().screen(&text))?;
        }
        count += 1;
        if arguments.count.is_some_and(|limit| count >= limit) {
            connection.end().await;
            return Ok(Code::SUCCESS);
        }
        sleep(arguments.interval).await;
    }
}
