//! One lock, whatever client asks for it.

use advisory_locking::LockMode::{Exclusive, Shared};

use crate::actor::Outcome::{Answered, Done, Granted, NotGranted};
use crate::actor::{Actor, Raw};
use crate::cases::{LONG, block, no_wait};
use crate::harness::diesel_postgres;
use crate::stage::{Harness, Stage};

/// An actor of every adapter for PostgreSQL.
fn everybody(stage: &Stage) -> Vec<Actor> {
    let mut actors = Vec::new();
    let mut enter = |adapter: &dyn Harness| actors.push(stage.enter(adapter.actor()));
    enter(&diesel_postgres::new());
    #[cfg(feature = "r2d2")]
    enter(&crate::harness::r2d2_postgres::new());
    #[cfg(feature = "diesel-sqlite")]
    enter(&crate::harness::multi_connection::new());
    #[cfg(all(
        feature = "diesel-sqlite",
        feature = "diesel-async-postgres",
        feature = "diesel-async-sqlite",
        feature = "bb8",
        feature = "deadpool",
        feature = "mobc"
    ))]
    {
        enter(&crate::harness::diesel_async::connection());
        enter(&crate::harness::diesel_async::bb8());
        enter(&crate::harness::diesel_async::deadpool());
        enter(&crate::harness::diesel_async::mobc());
    }
    #[cfg(all(feature = "diesel-sqlite", feature = "sea-orm"))]
    enter(&crate::harness::sea_orm::on_postgres());
    actors
}

fn play(case: fn(&Stage)) {
    Stage::play(Box::new(diesel_postgres::new()), case);
}

#[test]
fn every_adapter_excludes_every_other() {
    play(|stage| {
        let adapters = everybody(stage);
        let pairs = stage.pairs();
        for key in [stage.key("key"), pairs.0, pairs.1] {
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
    play(|stage| {
        let adapters = everybody(stage);
        let key = stage.key("key");
        let holder = stage.actor();
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        for (index, asker) in adapters.iter().enumerate() {
            asker.start_acquire(&key, block(LONG));
            stage.until_queued(&key, index + 1);
        }
        assert_eq!(holder.release(), Done);
        for asker in &adapters {
            assert_eq!(asker.finish(), Granted);
            assert_eq!(asker.release(), Done);
        }
    });
}

/// Plain SQL, as any other client of the database sends it.
#[test]
fn a_foreign_client_is_excluded_and_excludes() {
    play(|stage| {
        let key = stage.key("key");
        let foreign = stage.actor();
        let by_hand = |mode| foreign.raw(Raw::TryLock(key.raw(), mode));
        for adapter in everybody(stage) {
            assert_eq!(adapter.acquire(&key, no_wait()), Granted);
            assert_eq!(by_hand(Exclusive), Answered(Some(0)));
            assert_eq!(by_hand(Shared), Answered(Some(0)));
            assert_eq!(adapter.release(), Done);

            assert_eq!(by_hand(Shared), Answered(Some(1)));
            assert_eq!(adapter.try_acquire(&key, no_wait()), NotGranted);
            assert_eq!(adapter.try_acquire(&key, no_wait().shared()), Granted);
            assert_eq!(adapter.release(), Done);
            let unlocked = foreign.raw(Raw::Unlock(key.raw(), Shared));
            assert_eq!(unlocked, Answered(Some(1)));
        }
    });
}
