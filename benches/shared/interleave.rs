//! Interleaved timing: contenders alternate in short rounds.
//!
//! Ratios are computed within a round, so a machine that slows down affects all contenders. Rounds
//! are short, because the wake-up latency of an idle core changes within a tenth of a second. A
//! contender takes longer after one with another connection, whose server process has used the
//! caches. So the order is random, and the first cycles of each turn are not timed.

use std::time::Instant;

const ROUNDS: usize = 2_001;
const CYCLES: u32 = 5;
/// Cycles before those that are timed.
const WARM_UP: u32 = 5;

/// A named workload whose cycles are timed.
pub(crate) struct Contender<'c> {
    name: &'static str,
    /// Runs the given number of cycles.
    cycles: Box<dyn FnMut(u32) + 'c>,
}

impl<'c> Contender<'c> {
    pub(crate) fn new(name: &'static str, cycles: impl FnMut(u32) + 'c) -> Self {
        Self {
            name,
            cycles: Box::new(cycles),
        }
    }
}

/// Timings of the contenders.
pub(crate) struct Samples {
    names: Vec<&'static str>,
    /// Nanoseconds per cycle, by contender and round.
    nanos: Vec<Vec<f64>>,
}

/// Times all contenders, interleaved.
pub(crate) fn run_interleaved(contenders: &mut [Contender<'_>]) -> Samples {
    run_interleaved_for(ROUNDS, contenders)
}

/// Times all contenders, interleaved, for the given number of rounds.
pub(crate) fn run_interleaved_for(rounds: usize, contenders: &mut [Contender<'_>]) -> Samples {
    let mut nanos = vec![Vec::new(); contenders.len()];
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    for round in 0..=rounds {
        fastrand::shuffle(&mut order);
        for &at in &order {
            (contenders[at].cycles)(WARM_UP);
            let began = Instant::now();
            (contenders[at].cycles)(CYCLES);
            // The first round is a warm-up.
            if round > 0 {
                nanos[at].push(began.elapsed().as_secs_f64() * 1e9 / f64::from(CYCLES));
            }
        }
    }
    Samples {
        names: contenders.iter().map(|contender| contender.name).collect(),
        nanos,
    }
}

impl Samples {
    /// Prints the contenders in `which`, each with its ratio to the first ones: one per heading.
    pub(crate) fn print(&self, title: &str, which: std::ops::Range<usize>, ratios_to: &[&str]) {
        println!("\n{title:<34} {:>9}  ratio to", "ns");
        print!("{:<34} {:>9}", "", "");
        for heading in ratios_to {
            print!(" {heading:>11}");
        }
        println!();
        for at in which.clone() {
            print!("{:<34} {:>9.0}", self.names()[at], self.nanos(at));
            for baseline in which.clone().take(ratios_to.len()) {
                print!(" {:>11.3}", self.ratio(at, baseline));
            }
            println!();
        }
    }

    pub(crate) fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Returns the median time of a cycle in nanoseconds.
    pub(crate) fn nanos(&self, at: usize) -> f64 {
        median(self.nanos[at].clone())
    }

    /// Returns the median ratio of two contenders' times.
    pub(crate) fn ratio(&self, at: usize, baseline: usize) -> f64 {
        let rounds = self.nanos[at].iter().zip(&self.nanos[baseline]);
        median(rounds.map(|(one, other)| one / other).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
