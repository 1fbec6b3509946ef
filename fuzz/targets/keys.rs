//! Keys from arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| advisory_locking::fuzzing::keys(data));
