#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use sqlx::postgres::{PgAdvisoryLock, PgPool};

    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    run(&pool).await?;
    // A program that has not moved yet excludes the one that has.
    let lock = PgAdvisoryLock::new("report");
    let held = lock.acquire(pool.acquire().await?).await?;
    let contended = pool
        .try_with_advisory_lock(schemes::sqlx("report"), LockOptions::no_wait(), async |_| {
            Ok::<_, sqlx::Error>(())
        })
        .await?;
    assert!(contended.is_none());
    held.release_now().await?;
    Ok(())
}
