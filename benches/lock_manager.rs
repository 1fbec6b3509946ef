//! The lockers against what one would take instead: sqlx's lock, two statements of one's own, a queue of one's own over one connection,
//! and the statements of PormG. In one process and one run:
//!
//! ```sh
//! scripts/postgres run -- cargo bench --features diesel-async-postgres,bb8,diesel-postgres,r2d2,sea-orm,async-lock-manager --bench locker
//! ```
//!
//! It prints its figures, and writes them and the plots of README to `benches/results/`. After `--`, `--smoke` makes it a matter of seconds
//! and writes nothing, and the names of parts run those alone (`uncontended`, `hot-key`, `held`, `waiting`, `hand-off`, `processes`, `tenure`).
//! `taskset -c 1` and the like change what is compared: the clients and the server share the processors. What nobody contends for is measured
//! on one processor and on one each anyway.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench prints, and what goes wrong in it ends it"
)]

#[allow(dead_code, reason = "the other benches need more of it")]
#[path = "shared/baseline.rs"]
mod baseline;
#[path = "lock_manager/contenders.rs"]
mod contenders;
#[path = "lock_manager/figures.rs"]
mod figures;
#[path = "lock_manager/hand_off.rs"]
mod hand_off;
#[path = "lock_manager/held.rs"]
mod held;
#[path = "lock_manager/hot_key.rs"]
mod hot_key;
#[allow(dead_code, reason = "the other benches need more of it")]
#[path = "shared/interleave.rs"]
mod interleave;
#[path = "lock_manager/plots.rs"]
mod plots;
#[path = "lock_manager/processes.rs"]
mod processes;
#[path = "lock_manager/processor.rs"]
mod processor;
#[path = "lock_manager/server.rs"]
mod server;
#[path = "lock_manager/uncontended.rs"]
mod uncontended;
#[path = "lock_manager/waiting.rs"]
mod waiting;

use std::time::Instant;

use figures::Figures;

/// A part of the run: its name, and what it measures.
type Part = (&'static str, fn(&Scale, &mut Figures));

const PARTS: [Part; 7] = [
    ("uncontended", uncontended::measure),
    ("hot-key", hot_key::measure),
    ("held", held::measure),
    ("waiting", waiting::measure),
    ("hand-off", hand_off::measure),
    ("processes", processes::measure),
    ("tenure", processes::measure_tenures),
];

/// How long and how often, in full or for a run that only shows that everything works.
pub(crate) struct Scale {
    smoke: bool,
}

impl Scale {
    pub(crate) const fn of<T>(&self, full: T, smoke: T) -> T
    where
        T: Copy,
    {
        if self.smoke { smoke } else { full }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(child) = arguments.iter().position(|word| word == "--child") {
        return run_child(&arguments[child + 1..]);
    }
    let scale = Scale {
        smoke: arguments.iter().any(|word| word == "--smoke"),
    };
    // cargo adds `--bench`.
    let chosen: Vec<_> = arguments
        .iter()
        .filter(|word| !word.starts_with("--"))
        .collect();
    for name in &chosen {
        let known = PARTS.iter().any(|(part, _)| part == name);
        assert!(known, "there is no part {name}");
    }
    server::make_room();
    let mut figures = Figures::default();
    let began = Instant::now();
    for (name, measure) in PARTS {
        if chosen.is_empty() || chosen.iter().any(|part| *part == name) {
            measure(&scale, &mut figures);
            eprintln!("{name}: done after {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    figures.print();
    if chosen.is_empty() && !scale.smoke {
        figures.write();
        plots::draw(&figures);
    }
}

/// What this program does as a process of its own.
fn run_child(arguments: &[String]) {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["held", how, keys] => held::hold(how, keys.parse().unwrap()),
        ["contend", kind, tasks, millis] => {
            processes::contend(kind, tasks.parse().unwrap(), millis.parse().unwrap());
        }
        other => panic!("no such child: {other:?}"),
    }
}
