#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use sqlx::postgres::PgPoolOptions;

    // A pool of one connection is enough, as the page says.
    let url = std::env::var("DATABASE_URL")?;
    let connect = || PgPoolOptions::new().max_connections(1).connect(&url);
    let (pool, other) = (connect().await?, connect().await?);
    assert_eq!(sync(&pool, 4).await?, Some(()));
    let held = other.acquire_advisory_lock(("sync-stock", 4), LockOptions::no_wait()).await?;
    assert_eq!(sync(&pool, 4).await?, None);
    held.release().await?;
    Ok(())
}
