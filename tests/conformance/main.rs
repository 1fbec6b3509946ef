//! Every case on every adapter.
//!
//! A case is written once, in [`cases`], and sends commands to actors. An adapter is one
//! [`Harness`](fixture::Harness). On a backend without locks, a case asserts the behaviour that
//! the backend documents; no case is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[macro_use]
mod suite;

#[path = "../model/mod.rs"]
mod pg_model;

mod actor;
#[cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-sqlite",
    any(
        feature = "sea-orm",
        all(
            feature = "diesel-async-postgres",
            feature = "diesel-async-sqlite",
            feature = "bb8",
            feature = "deadpool",
            feature = "mobc"
        )
    )
))]
mod actor_async;
mod actor_blocking;
#[cfg(all(
    feature = "r2d2",
    any(feature = "diesel-postgres", feature = "diesel-sqlite")
))]
mod actor_pooled;
mod cases;
#[cfg(feature = "diesel-postgres")]
mod cross_adapter;
mod faulty_adapters;
mod fixture;
mod harness;
#[cfg(feature = "diesel-postgres")]
mod model_vs_server;

conformance! {
    model => crate::harness::model::showing_codes();
    model_hiding_codes => crate::harness::model::hiding_codes();
    #[cfg(feature = "diesel-postgres")]
    diesel_postgres => crate::harness::diesel_postgres::new();
    #[cfg(all(feature = "diesel-postgres", feature = "r2d2"))]
    r2d2_postgres => crate::harness::r2d2_postgres::new();
    #[cfg(all(feature = "diesel-postgres", feature = "diesel-sqlite"))]
    multi_connection => crate::harness::multi_connection::new();
    #[cfg(feature = "diesel-sqlite")]
    diesel_sqlite => crate::harness::diesel_sqlite::new();
    #[cfg(all(feature = "diesel-sqlite", feature = "r2d2"))]
    r2d2_sqlite => crate::harness::r2d2_sqlite::new();
    #[cfg(feature = "rusqlite")]
    rusqlite => crate::harness::rusqlite::new();
}

// These harnesses share the observer and the plain SQL with Diesel's.
#[cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-sqlite",
    feature = "diesel-async-postgres",
    feature = "diesel-async-sqlite",
    feature = "bb8",
    feature = "deadpool",
    feature = "mobc"
))]
conformance! {
    diesel_async_postgres => crate::harness::diesel_async::connection();
    bb8_postgres => crate::harness::diesel_async::bb8();
    deadpool_postgres => crate::harness::diesel_async::deadpool();
    mobc_postgres => crate::harness::diesel_async::mobc();
    diesel_async_sqlite => crate::harness::diesel_async::sqlite();
    bb8_sqlite => crate::harness::diesel_async::sqlite_bb8();
    deadpool_sqlite => crate::harness::diesel_async::sqlite_deadpool();
    mobc_sqlite => crate::harness::diesel_async::sqlite_mobc();
}

#[cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-sqlite",
    feature = "sea-orm"
))]
conformance! {
    sea_orm_postgres => crate::harness::sea_orm::on_postgres();
    sea_orm_sqlite => crate::harness::sea_orm::on_sqlite();
}
