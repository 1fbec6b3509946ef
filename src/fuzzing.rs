//! Entry points of the fuzz targets: bytes become a key, or the events of a machine.
//!
//! Built with `cfg(fuzzing)` for the targets in `fuzz/`, and in tests, which run the same functions
//! with random bytes. A target panics on a broken promise.

pub use crate::key::fuzz::keys;
pub use crate::protocol::fuzz::machines;

/// Bytes that are used up one after the other.
#[derive(Debug)]
pub(crate) struct Bytes<'d>(pub(crate) &'d [u8]);

impl<'d> Bytes<'d> {
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Returns an element of the list; the first one once the bytes are used up.
    pub(crate) fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        let at = usize::from(self.next().unwrap_or(0)) % list.len();
        list[at]
    }

    pub(crate) fn take(&mut self, count: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn number(&mut self) -> i64 {
        let mut number = [0; 8];
        let taken = self.take(8);
        number[..taken.len()].copy_from_slice(taken);
        i64::from_le_bytes(number)
    }
}

#[cfg(test)]
mod tests {
    /// Enough iterations to reach every state of every machine, and fast in a debug build.
    const ITERATIONS: u64 = 20_000;

    /// Prints the bytes of a failed iteration.
    struct PrintOnPanic<'d>(&'d [u8]);

    impl Drop for PrintOnPanic<'_> {
        #[allow(clippy::print_stdout, reason = "a failed test prints its input")]
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("failed with {:?}", self.0);
            }
        }
    }

    fn run_random(target: fn(&[u8])) {
        let mut random = fastrand::Rng::new();
        for _ in 0..ITERATIONS {
            let length = random.usize(..64);
            let data: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let _print = PrintOnPanic(&data);
            target(&data);
        }
    }

    #[test]
    fn keys() {
        run_random(super::keys);
    }

    #[test]
    fn machines() {
        run_random(super::machines);
    }
}
