//! Mutual exclusion between different adapters, and between an adapter and plain SQL.

use advisory_locking::LockMode::{Exclusive, Shared};

use crate::actor::Outcome::{Answered, Done, Granted, NotGranted};
use crate::actor::{Actor, SqlCommand};
use crate::cases::{LONG, block, no_wait};
use crate::fixture::Fixture;
use crate::harness::diesel_postgres::DIESEL;
use crate::harness::postgres::{Adapter, url};

/// Starts an actor of every adapter for PostgreSQL.
fn all_adapters(fixture: &Fixture) -> Vec<Actor> {
    let mut actors = Vec::new();
    let mut spawn = |adapter: Adapter| actors.push(fixture.spawn_actor(adapter.actor(url())));
    spawn(DIESEL);
    spawn(crate::harness::r2d2_postgres::R2D2);
    spawn(crate::harness::multi_connection::MULTI_CONNECTION);
    {
        use crate::harness::diesel_async;
        spawn(diesel_async::DIESEL_ASYNC);
        spawn(diesel_async::BB8);
        spawn(diesel_async::DEADPOOL);
        spawn(diesel_async::MOBC);
    }
    spawn(crate::harness::sea_orm::SEA_ORM);
    spawn(crate::harness::sqlx::SQLX);
    spawn(crate::harness::sqlx::SQLX_POOL);
    actors
}

fn run(case: fn(&Fixture)) {
    Fixture::run(Box::new(DIESEL.on_test_server()), case);
}

#[test]
fn every_adapter_excludes_every_other() {
    run(|fixture| {
        let adapters = all_adapters(fixture);
        let pairs = fixture.pairs();
        for key in [fixture.key("key"), pairs.0, pairs.1] {
            for (index, holder) in adapters.iter().enumerate() {
                assert_eq!(holder.acquire(&key, no_wait()), Granted);
                for (other, asker) in adapters.iter().enumerate() {
                    if other != index {
                        assert_eq!(asker.try_acquire(&key, no_wait()), NotGranted);
                    }
                }
                assert_eq!(holder.release(), Done);
            }
        }
    });
}

#[test]
fn adapters_queue_behind_one_another() {
    run(|fixture| {
        let adapters = all_adapters(fixture);
        let key = fixture.key("key");
        let holder = fixture.actor();
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        for (index, asker) in adapters.iter().enumerate() {
            asker.start_acquire(&key, block(LONG));
            fixture.until_queued(&key, index + 1);
        }
        assert_eq!(holder.release(), Done);
        for asker in &adapters {
            assert_eq!(asker.finish(), Granted);
            assert_eq!(asker.release(), Done);
        }
    });
}

/// The other client sends plain SQL.
#[test]
fn a_foreign_client_is_excluded_and_excludes() {
    run(|fixture| {
        let key = fixture.key("key");
        let foreign = fixture.actor();
        let by_hand = |mode| foreign.run_sql(SqlCommand::TryLock(key.raw(), mode));
        for adapter in all_adapters(fixture) {
            assert_eq!(adapter.acquire(&key, no_wait()), Granted);
            assert_eq!(by_hand(Exclusive), Answered(Some(0)));
            assert_eq!(by_hand(Shared), Answered(Some(0)));
            assert_eq!(adapter.release(), Done);

            assert_eq!(by_hand(Shared), Answered(Some(1)));
            assert_eq!(adapter.try_acquire(&key, no_wait()), NotGranted);
            assert_eq!(adapter.try_acquire(&key, no_wait().shared()), Granted);
            assert_eq!(adapter.release(), Done);
            let unlocked = foreign.run_sql(SqlCommand::Unlock(key.raw(), Shared));
            assert_eq!(unlocked, Answered(Some(1)));
        }
    });
}
