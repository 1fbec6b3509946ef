//! The keys of other systems: what those systems themselves made of the same names.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails says so by panicking"
)]

mod invalid;
mod vectors;
