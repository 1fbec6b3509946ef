//! The backoff of a client that polls.

use std::time::Duration;

/// Growing, jittered backoff: each is drawn from the upper half of a range that doubles until it reaches the max pause.
///
/// Growing, so that a lock that is free soon is taken soon and one that is held long is not asked for often. Jittered, so that
/// clients that began together do not ask together. The lower half is left out so that no pause is near zero ("equal jitter").
#[derive(Debug)]
pub(crate) struct Backoff {
    range: Duration,
    max: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// The first range is this part of the max pause: four doublings.
    const FIRST: u32 = 16;

    pub(crate) fn new(max: Duration, random: fastrand::Rng) -> Self {
        Self {
            range: (max / Self::FIRST).max(Duration::from_nanos(1)),
            max,
            random,
        }
    }

    /// Backoff that begin with another range than the first.
    #[cfg_attr(
        not(feature = "lock-manager"),
        allow(dead_code, reason = "for those who hand a lock on")
    )]
    pub(crate) fn starting_at(range: Duration, max: Duration, random: fastrand::Rng) -> Self {
        Self {
            range: range.max(Duration::from_nanos(1)),
            max,
            random,
        }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let range = self.range;
        self.range = range.saturating_mul(2).min(self.max);
        let half = range / 2;
        // A product with a factor in [0, 1) cannot overflow.
        (half + half.mul_f64(self.random.f64())).max(Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_never_pass_it() {
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
    fn no_interval_is_too_short_or_too_long() {
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
