//! Counters of the events of a run.

macro_rules! coverage {
    ($($field:ident: $what:literal,)*) => {
        /// Number of occurrences of each event.
        #[derive(Clone, Debug, Default, Eq, PartialEq)]
        pub(crate) struct Coverage {
            $(pub(crate) $field: u64,)*
        }

        impl Coverage {
            pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($what, self.$field),)*].into_iter()
            }

            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}
coverage! {
    steps: "steps",
    granted: "granted",
    succeeded: "succeeded",
    contended: "contended",
    failed: "failed",
    lost: "lost",
    deadlocks: "deadlocks",
    swapped: "answered by another session",
    dropped: "dropped",
    requests_rejected: "rejected by a fault",
    done_but_reported: "done, but reported as failed",
    granted_but_reported: "granted, but reported as failed",
    replies_lost: "replies lost",
    expired: "waits expired",
    cancelled: "waits cancelled",
    terminated: "sessions terminated",
}
