//! Sessions that lose their prepared statements, which sqlx has in a cache.

use advisory_locking::{AsyncPooledAdvisoryLocking, LockErrorKind};
use sea_orm::{ConnectionTrait, DatabaseConnection, SqlxPostgresConnector};
use sqlx::{Executor, postgres::PgPoolOptions};
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key, url};

use crate::open::{NO_WAIT, number, pid, postgres};

const PREPARED: &str = "SELECT 7::int8";

/// Prepares the statements of a lock and one of the application.
async fn warm_up(db: &DatabaseConnection) {
    let guard = db
        .acquire_advisory_lock(fresh_key(), NO_WAIT)
        .await
        .unwrap();
    assert_eq!(number(&*guard, PREPARED).await, 7);
    guard.release().await.unwrap();
}

/// The next user of the pool's only connection is not affected.
async fn assert_usable(db: &DatabaseConnection) {
    assert_eq!(number(db, PREPARED).await, 7);
    warm_up(db).await;
}

#[tokio::test]
async fn discard_all_in_a_body_is_not_held() {
    for warm in [true, false] {
        let (db, key) = (postgres(1).await, fresh_key());
        if warm {
            warm_up(&db).await;
        }
        let discarded = db
            .with_advisory_lock(&key, NO_WAIT, async |db| {
                // In the cache of sqlx, which the release must clear: it may be the first one.
                assert_eq!(number(db, PREPARED).await, 7);
                db.execute_unprepared("DISCARD ALL").await.unwrap();
                Ok::<_, advisory_locking::LockError>(())
            })
            .await;
        assert_eq!(discarded.unwrap_err().kind(), LockErrorKind::NotHeld);
        assert_usable(&db).await;
    }
}

#[tokio::test]
async fn discard_all_under_a_dropped_guard_costs_the_session() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    warm_up(&db).await;
    let before = pid(&db).await;
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    guard.execute_unprepared("DISCARD ALL").await.unwrap();
    drop(guard);
    observer.assert_free(&key, "the drop").await;
    assert_usable(&db).await;
    assert_ne!(pid(&db).await, before);
}

/// The guard acquires a second lock on the connection that has lost its statements.
#[tokio::test]
async fn lock_after_discard_all_is_granted() {
    use advisory_locking::AsyncAdvisoryLocking;

    let (db, mut observer, [outer, inner]) =
        (postgres(1).await, connect(), [(); 2].map(|()| fresh_key()));
    warm_up(&db).await;
    let mut guard = db.acquire_advisory_lock(&outer, NO_WAIT).await.unwrap();
    guard.execute_unprepared("DISCARD ALL").await.unwrap();
    let nested = guard.acquire_advisory_lock(&inner, NO_WAIT).await.unwrap();
    assert_eq!(observer.lock_entries(&inner).len(), 1);
    nested.release().await.unwrap();
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::NotHeld);
}

/// A hook of the pool discards the state of each session that returns.
#[tokio::test]
async fn discard_all_by_a_hook_of_the_pool_affects_no_lock() {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_release(|connection, _| {
            Box::pin(async move { connection.execute("DISCARD ALL").await.map(|_| true) })
        })
        .connect(&url())
        .await
        .unwrap();
    let (db, mut observer) = (
        SqlxPostgresConnector::from_sqlx_postgres_pool(pool),
        connect(),
    );
    for round in 0..6 {
        let key = fresh_key();
        let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        assert_eq!(observer.lock_entries(&key).len(), 1);
        if round % 2 == 0 {
            guard.release().await.unwrap();
        } else {
            drop(guard);
        }
        observer.assert_free(&key, "the release").await;
    }
}
