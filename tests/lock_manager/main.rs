//! The lockers on a real server, over every pool: each case is written once.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[macro_use]
mod mount;

mod cases;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../real_faults/cluster.rs"]
mod cluster;
mod eyes;
mod face;
mod held;
#[path = "../cancellation/pending.rs"]
mod pending;
mod place;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../postgres/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../real_faults/relay.rs"]
mod relay;
mod runtimes;
mod sqlite;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../postgres/support.rs"]
mod support;
mod types;

lockers! {
    bb8 => crate::place::Kind::Bb8;
    deadpool => crate::place::Kind::Deadpool;
    mobc => crate::place::Kind::Mobc;
    sea_orm => crate::place::Kind::SeaOrm;
    r2d2 => crate::place::Kind::R2d2;
}

tasks! {
    bb8_tasks => crate::place::Kind::Bb8;
    deadpool_tasks => crate::place::Kind::Deadpool;
    mobc_tasks => crate::place::Kind::Mobc;
    sea_orm_tasks => crate::place::Kind::SeaOrm;
}
