//! Arbitrary answers to the machines of the protocol.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| advisory_locking::fuzzing::machines(data));
