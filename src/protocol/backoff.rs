//! Backoff between polls.
//!
//! # Implementation details
//!
//! Exponential backoff with "equal jitter" (Marc Brooker, [Exponential Backoff and
//! Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)). Each pause
//! is random within the upper half of a range. The range doubles after each pause until it reaches
//! the maximum. Growth reduces the load while a lock is held for long. Jitter separates clients
//! that started together. The lower half is excluded so that no pause is close to zero.

use std::time::Duration;

/// Jittered exponential backoff.
#[derive(Debug)]
pub(crate) struct Backoff {
    range: Duration,
    max: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// Ratio of the maximum to the first range: four doublings.
    const FIRST: u32 = 16;

    pub(crate) fn new(max: Duration, random: fastrand::Rng) -> Self {
        Self::starting_at(max / Self::FIRST, max, random)
    }

    /// Starts with the given range.
    pub(crate) fn starting_at(range: Duration, max: Duration, random: fastrand::Rng) -> Self {
        Self {
            // A range of zero would never grow, and would poll without a pause.
            range: range.max(Duration::from_nanos(1)),
            max,
            random,
        }
    }

    #[cfg(feature = "lock-manager")]
    pub(crate) const fn max(&self) -> Duration {
        self.max
    }

    /// Returns the next pause: more than zero, at most the maximum.
    pub(crate) fn next(&mut self) -> Duration {
        let range = self.range;
        self.range = range.saturating_mul(2).min(self.max);
        let half = range / 2;
        // A product with a factor in [0, 1) does not overflow.
        (half + half.mul_f64(self.random.f64())).max(Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum() {
        let max = Duration::from_millis(100);
        for seed in 0..200 {
            let mut backoff = Backoff::new(max, fastrand::Rng::with_seed(seed));
            let mut range = max / 16;
            for _ in 0..10 {
                let pause = backoff.next();
                assert!(
                    pause >= range / 2 && pause <= range,
                    "{pause:?} in {range:?}"
                );
                range = (range * 2).min(max);
            }
        }
    }

    #[test]
    fn pauses_differ() {
        let mut backoff = Backoff::new(Duration::from_secs(1), fastrand::Rng::with_seed(1));
        let drawn: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(drawn.windows(2).all(|pair| pair[0] != pair[1]), "{drawn:?}");
    }

    #[test]
    fn extreme_intervals_are_valid() {
        for max in [
            Duration::from_nanos(1),
            Duration::from_nanos(3),
            Duration::MAX,
        ] {
            let mut backoff = Backoff::new(max, fastrand::Rng::with_seed(1));
            for _ in 0..10 {
                let pause = backoff.next();
                assert!(pause > Duration::ZERO && pause <= max, "{pause:?}");
            }
        }
    }
}
