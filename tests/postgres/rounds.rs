//! How long the raced tests go on.

/// So many time-outs of each adapter meet the grant: 2,000, or what `ADVISORY_LOCKING_RACED_TIME_OUTS` says.
pub(crate) fn time_outs() -> u32 {
    match std::env::var("ADVISORY_LOCKING_RACED_TIME_OUTS") {
        Ok(text) => text.parse().unwrap_or_else(|_| {
            panic!("ADVISORY_LOCKING_RACED_TIME_OUTS is a number, not {text:?}")
        }),
        Err(_) => 2000,
    }
}
