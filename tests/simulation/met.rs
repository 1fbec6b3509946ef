//! What plays come to.

macro_rules! met {
    ($($field:ident: $what:literal,)*) => {
        /// How often what has happened.
        #[derive(Clone, Debug, Default, Eq, PartialEq)]
        pub(crate) struct Met {
            $(pub(crate) $field: u64,)*
        }

        impl Met {
            pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($what, self.$field),)*].into_iter()
            }

            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}
met! {
    steps: "steps",
    granted: "granted",
    succeeded: "succeeded",
    refused: "refused",
    failed: "failed",
    lost: "lost",
    deadlocks: "deadlocks",
    exchanged: "answered by another session",
    dropped: "dropped",
    refusals: "refused by a fault",
    done_but_reported: "done, but reported as failed",
    granted_but_reported: "granted, but reported as failed",
    replies_lost: "replies lost",
    expired: "waits expired",
    cancelled: "waits cancelled",
    terminated: "sessions ended",
}
