//! Batches of lock operations on a real PostgreSQL server, through every client.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[macro_use]
mod mount;

mod agreement;
mod cases;
mod client;
#[allow(dead_code, reason = "the tests of faults need more of it")]
#[path = "../real_faults/cluster.rs"]
mod cluster;
#[path = "../model/mod.rs"]
mod model;
#[allow(dead_code, reason = "the tests of batch trips need more of it")]
#[path = "../postgres/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "the tests of faults need more of it")]
#[path = "../postgres/support.rs"]
mod support;
#[allow(dead_code, reason = "the tests of faults need more of it")]
#[path = "../postgres/throwaway.rs"]
mod throwaway;

lock_batches! {
    diesel => crate::client::diesel;
    #[cfg(feature = "diesel-async-postgres")]
    diesel_async => crate::client::diesel_async;
    #[cfg(feature = "sea-orm")]
    sea_orm => crate::client::sea_orm;
}
