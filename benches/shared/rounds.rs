//! Contenders that take turns in short rounds. What is compared is the ratio within a round, so that a machine that slows down slows
//! down all of them. Rounds are short, because how fast a sleeping core wakes changes from one tenth of a second to the next.

use std::time::Instant;

const ROUNDS: usize = 2_001;
const CYCLES: u32 = 5;

/// Something whose cycles are timed.
pub(crate) struct Contender<'c> {
    name: &'static str,
    /// Makes so many cycles.
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

/// What each contender took.
pub(crate) struct Taken {
    names: Vec<&'static str>,
    /// Nanoseconds a cycle, by contender and round.
    nanos: Vec<Vec<f64>>,
}

/// Lets all of them take turns.
pub(crate) fn take_turns(contenders: &mut [Contender<'_>]) -> Taken {
    take_turns_for(ROUNDS, contenders)
}

/// Lets all of them take so many turns.
pub(crate) fn take_turns_for(rounds: usize, contenders: &mut [Contender<'_>]) -> Taken {
    let mut nanos = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let began = Instant::now();
            (contenders[at].cycles)(CYCLES);
            // The first round warms up.
            if round > 0 {
                nanos[at].push(began.elapsed().as_secs_f64() * 1e9 / f64::from(CYCLES));
            }
        }
    }
    Taken {
        names: contenders.iter().map(|contender| contender.name).collect(),
        nanos,
    }
}

impl Taken {
    /// Prints some of the contenders, each with its ratio to the first ones, as many as there are headings for.
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

    /// Nanoseconds a cycle.
    pub(crate) fn nanos(&self, at: usize) -> f64 {
        median(self.nanos[at].clone())
    }

    /// How many times as long one takes as another.
    pub(crate) fn ratio(&self, at: usize, baseline: usize) -> f64 {
        let rounds = self.nanos[at].iter().zip(&self.nanos[baseline]);
        median(rounds.map(|(one, other)| one / other).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
