//! Simulated locks for backends without locks, used by unit tests with the feature `testing`.
//!
//! # Implementation details
//!
//! With the feature, the types come from the module `testing`: statements of a simulated call go to
//! a lock table in memory instead of the session. Without the feature, the types are uninhabited,
//! and the compiler removes each `match` on them.

cfg_if::cfg_if! {
    if #[cfg(feature = "testing")] {
        pub(crate) use crate::testing::simulation::{SimulatedCall, SimulatedHold, SimulatedLocks};
    } else {
        mod disabled;
        pub(crate) use disabled::{SimulatedCall, SimulatedHold, SimulatedLocks};
    }
}
