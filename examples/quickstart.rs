//! smoke
use advisory_locking::*;
use diesel::prelude::*;
use std::time::Duration;
fn main() {
    tracing_subscriber::fmt().init();
    let url = std::env::var("DATABASE_URL").unwrap();
    let mut a = PgConnection::establish(&url).unwrap();
    let mut b = PgConnection::establish(&url).unwrap();
    for key in [LockKey::from("x"), LockKey::from((1, -2))] {
        let g = a
            .acquire_advisory_lock(&key, LockOptions::no_wait())
            .unwrap();
        println!(
            "{:?}",
            b.try_acquire_advisory_lock(&key, LockOptions::no_wait())
                .unwrap()
                .is_none()
        );
        let w = LockOptions::wait_up_to(Duration::from_millis(50));
        for s in [WaitStrategy::Poll, WaitStrategy::Block] {
            println!(
                "{:?}",
                b.acquire_advisory_lock(&key, w.strategy(s)).map(|_| ())
            );
            b.transaction(|b| {
                println!(
                    "xact {:?}",
                    b.acquire_advisory_xact_lock(&key, w.strategy(s))
                );
                println!(
                    "in tx {:?}",
                    b.acquire_advisory_lock(&key, w.strategy(s).allow_in_transaction())
                        .map(|_| ())
                );
                diesel::sql_query("select 1").execute(b)
            })
            .unwrap();
        }
        g.release().unwrap();
        b.transaction(|b| {
            println!("{:?}", b.try_acquire_advisory_xact_lock(&key, w));
            diesel::sql_query("select 1").execute(b)
        })
        .unwrap();
        let g = b
            .acquire_advisory_lock(&key, LockOptions::no_wait().shared())
            .unwrap();
        println!(
            "{:?}",
            a.acquire_advisory_lock(&key, LockOptions::no_wait().shared())
                .map(|g| g.release())
        );
        println!(
            "{:?}",
            a.acquire_advisory_lock(&key, w.strategy(WaitStrategy::Block))
                .map(|g| g.release())
        );
        drop(g);
    }
    diesel::sql_query("select pg_terminate_backend(pg_backend_pid())")
        .execute(&mut b)
        .unwrap_err();
    println!(
        "{:?}",
        b.acquire_advisory_lock("y", LockOptions::no_wait())
            .map(|_| ())
    );
    let r = a.with_advisory_lock("y", LockOptions::no_wait(), |a| {
        let _ = diesel::sql_query("select pg_terminate_backend(pg_backend_pid())").execute(a);
        Ok::<_, LockError>(())
    });
    println!("{:?}", r);
}
