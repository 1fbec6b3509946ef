//! Who answers for the locks of a database that has none: nobody, or, in a test that asks for it, the kit in `testing`.
//!
//! Without the feature nothing of this exists at run time: the types have no values, and every `match` on them is empty.

cfg_if::cfg_if! {
    if #[cfg(feature = "testing")] {
        pub(crate) use crate::testing::stand_in::{Attempt, Hold, Kept, StandIn};
    } else {
        mod nobody;
        pub(crate) use nobody::{Attempt, Hold, Kept, StandIn};
    }
}
