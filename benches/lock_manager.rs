//! The lock manager, compared with alternatives: sqlx's lock, the two bare lock functions, a mutex
//! before one connection, and the statements of PormG. All in one process and one run:
//!
//! ```sh
//! scripts/postgres run -- cargo bench --features \
//!     diesel-async-postgres,bb8,diesel-postgres,r2d2,sea-orm,async-lock-manager \
//!     --bench lock_manager
//! ```
//!
//! It prints its results, and writes them and the charts of README to `benches/results/`. Arguments
//! after `--`:
//!
//! | argument | effect |
//! |---|---|
//! | `--smoke` | runs for seconds only, and writes no file |
//! | `uncontended`, `hot-key`, `many-keys`, `waiting`, `hand-off`, `processes`, `hand-off-time` | runs these sections alone |
//!
//! With `taskset -c 1` the clients and the server share a CPU, which changes the comparison. The
//! section `uncontended` sets the CPU affinity itself.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench prints, and a failure ends it"
)]

#[allow(dead_code, reason = "the other benches need more of it")]
#[path = "shared/baseline.rs"]
mod baseline;
#[path = "lock_manager/contenders.rs"]
mod contenders;
#[path = "lock_manager/cpu_affinity.rs"]
mod cpu_affinity;
#[path = "lock_manager/hand_off.rs"]
mod hand_off;
#[path = "lock_manager/hot_key.rs"]
mod hot_key;
#[allow(dead_code, reason = "the other benches need more of it")]
#[path = "shared/interleave.rs"]
mod interleave;
#[path = "lock_manager/many_keys.rs"]
mod many_keys;
#[path = "lock_manager/plots.rs"]
mod plots;
#[path = "lock_manager/processes.rs"]
mod processes;
#[path = "lock_manager/results.rs"]
mod results;
#[path = "lock_manager/server.rs"]
mod server;
#[path = "lock_manager/uncontended.rs"]
mod uncontended;
#[path = "lock_manager/waiting.rs"]
mod waiting;

use std::time::Instant;

use results::Results;

/// A section of the run: its name and its function.
type Section = (&'static str, fn(&Scale, &mut Results));

const SECTIONS: [Section; 7] = [
    ("uncontended", uncontended::measure),
    ("hot-key", hot_key::measure),
    ("many-keys", many_keys::measure),
    ("waiting", waiting::measure),
    ("hand-off", hand_off::measure),
    ("processes", processes::measure),
    ("hand-off-time", processes::measure_hand_off_times),
];

/// The scale of the measurements: full, or a smoke run.
pub(crate) struct Scale {
    smoke: bool,
}

impl Scale {
    pub(crate) const fn pick<T>(&self, full: T, smoke: T) -> T
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
        let known = SECTIONS.iter().any(|(part, _)| part == name);
        assert!(known, "there is no section {name}");
    }
    server::ensure_lock_table_size();
    let mut results = Results::default();
    let began = Instant::now();
    for (name, measure) in SECTIONS {
        if chosen.is_empty() || chosen.iter().any(|part| *part == name) {
            measure(&scale, &mut results);
            eprintln!("{name}: done after {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    results.print();
    if chosen.is_empty() && !scale.smoke {
        results.write();
        plots::draw(&results);
    }
}

/// Runs this program as a child process of the bench.
fn run_child(arguments: &[String]) {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["many-keys", how, keys] => many_keys::hold(how, keys.parse().unwrap()),
        ["contend", kind, tasks, millis] => {
            processes::contend(kind, tasks.parse().unwrap(), millis.parse().unwrap());
        }
        other => panic!("no such child: {other:?}"),
    }
}
