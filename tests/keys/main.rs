//! Keys of other systems, compared with the keys that those systems derive from the same names.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod invalid;
mod vectors;
