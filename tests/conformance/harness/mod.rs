//! The adapters, each as a [`Harness`](crate::fixture::Harness).

pub(crate) mod model;

cfg_if::cfg_if! {
    if #[cfg(feature = "diesel-postgres")] {
        pub(crate) mod postgres;
        pub(crate) mod diesel_postgres;
    }
}
cfg_if::cfg_if! {
    if #[cfg(all(feature = "diesel-postgres", feature = "r2d2"))] {
        pub(crate) mod r2d2_postgres;
    }
}
cfg_if::cfg_if! {
    if #[cfg(all(feature = "diesel-postgres", feature = "diesel-sqlite"))] {
        pub(crate) mod multi_connection;
    }
}
cfg_if::cfg_if! {
    if #[cfg(feature = "diesel-sqlite")] {
        pub(crate) mod diesel_sqlite;
    }
}
cfg_if::cfg_if! {
    if #[cfg(all(feature = "diesel-sqlite", feature = "r2d2"))] {
        pub(crate) mod r2d2_sqlite;
    }
}
cfg_if::cfg_if! {
    if #[cfg(feature = "rusqlite")] {
        pub(crate) mod rusqlite;
    }
}
cfg_if::cfg_if! {
    if #[cfg(any(feature = "diesel-sqlite", feature = "rusqlite"))] {
        mod no_locks;
    }
}
cfg_if::cfg_if! {
    if #[cfg(all(
        feature = "diesel-postgres",
        feature = "diesel-sqlite",
        feature = "diesel-async-postgres",
        feature = "diesel-async-sqlite",
        feature = "bb8",
        feature = "deadpool",
        feature = "mobc"
    ))] {
        pub(crate) mod diesel_async;
    }
}
cfg_if::cfg_if! {
    if #[cfg(all(feature = "diesel-postgres", feature = "diesel-sqlite", feature = "sea-orm"))] {
        pub(crate) mod sea_orm;
    }
}
