//! Number of round trips of each call on a warm connection, compared with the documented number.
//!
//! ```sh
//! scripts/postgres run -- cargo bench --all-features --bench round_trips
//! ```
//!
//! A round trip consists of the messages that the client sends before it waits and the replies up
//! to one `ReadyForQuery`. A proxy counts the `ReadyForQuery` messages.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its results and ends at the first error"
)]

#[path = "../tests/postgres/round_trips.rs"]
mod round_trips;

fn main() {
    let lines = round_trips::measure();
    println!("{:<52} {:>6} {:>9}", "call", "taken", "expected");
    for line in &lines {
        println!("{:<52} {:>6} {:>9}", line.call, line.taken, line.promised);
    }
    assert!(lines.iter().all(|line| line.taken == line.promised));
}
