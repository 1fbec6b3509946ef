//! The databases, and one adapter per client library.
//!
//! A *backend* is a database, an *adapter* a client library. What a backend is asked and what its errors mean stands once, in
//! the backend's module; an adapter runs statements, reports errors, and can end its session.

#[cfg(any(feature = "bb8", feature = "mobc", feature = "sea-orm"))]
mod at_home;
#[cfg(any(feature = "diesel-async-postgres", feature = "sea-orm"))]
mod background;
pub(crate) mod postgres;
pub(crate) mod sqlite;

cfg_if::cfg_if! {
    if #[cfg(any(
        feature = "diesel-postgres",
        feature = "diesel-sqlite",
        feature = "diesel-async-postgres",
        feature = "diesel-async-sqlite"
    ))] {
        #[cfg_attr(docsrs, doc(cfg(any(
            feature = "diesel-postgres",
            feature = "diesel-sqlite",
            feature = "diesel-async-postgres",
            feature = "diesel-async-sqlite"
        ))))]
        pub mod diesel;
    }
}
cfg_if::cfg_if! {
    if #[cfg(any(feature = "diesel-async-postgres", feature = "diesel-async-sqlite"))] {
        #[cfg_attr(docsrs, doc(cfg(any(feature = "diesel-async-postgres", feature = "diesel-async-sqlite"))))]
        pub mod diesel_async;
    }
}
cfg_if::cfg_if! {
    if #[cfg(any(feature = "bb8", feature = "mobc"))] {
        mod checked_out;
        #[cfg_attr(docsrs, doc(cfg(any(feature = "bb8", feature = "mobc"))))]
        pub use checked_out::CheckedOut;
    }
}
cfg_if::cfg_if! {
    if #[cfg(feature = "bb8")] {
        #[cfg_attr(docsrs, doc(cfg(feature = "bb8")))]
        pub mod bb8;
    }
}
cfg_if::cfg_if! {
    if #[cfg(feature = "deadpool")] {
        #[cfg_attr(docsrs, doc(cfg(feature = "deadpool")))]
        pub mod deadpool;
    }
}
cfg_if::cfg_if! {
    if #[cfg(feature = "mobc")] {
        #[cfg_attr(docsrs, doc(cfg(feature = "mobc")))]
        pub mod mobc;
    }
}
cfg_if::cfg_if! {
    if #[cfg(feature = "r2d2")] {
        #[cfg_attr(docsrs, doc(cfg(feature = "r2d2")))]
        pub mod r2d2;
    }
}
cfg_if::cfg_if! {
    if #[cfg(feature = "rusqlite")] {
        #[cfg_attr(docsrs, doc(cfg(feature = "rusqlite")))]
        pub mod rusqlite;
    }
}
cfg_if::cfg_if! {
    if #[cfg(feature = "sea-orm")] {
        #[cfg_attr(docsrs, doc(cfg(feature = "sea-orm")))]
        pub mod sea_orm;
    }
}
