//! Prints how many round trips each call takes on a warm connection, and fails if one takes more than promised:
//! `scripts/postgres run -- cargo bench --all-features --bench round_trips`.
//!
//! A round trip is what the client sends before it must wait, and the server's answers to it, which end with one
//! `ReadyForQuery`. A proxy between the two counts those.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints, and what goes wrong in it ends it"
)]

#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/postgres/proxy.rs"]
mod proxy;
#[path = "../tests/postgres/round_trips.rs"]
mod round_trips;
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/postgres/support.rs"]
mod support;

fn main() {
    let lines = round_trips::measure();
    println!("{:<52} {:>6} {:>9}", "call", "taken", "promised");
    for line in &lines {
        println!("{:<52} {:>6} {:>9}", line.call, line.taken, line.promised);
    }
    assert!(lines.iter().all(|line| line.taken == line.promised));
}
