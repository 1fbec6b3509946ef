#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel_async::pooled_connection::AsyncDieselConnectionManager;

    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(std::env::var("DATABASE_URL")?);
    let pool = Pool::builder().max_size(4).build(manager).await?;
    let locks = start(&pool)?;
    tokio::try_join!(sync(&locks, &pool, 4), sync(&locks, &pool, 4), sync(&locks, &pool, 5))?;
    // All of them have released it.
    let left = locks.try_acquire(("sync-calendar", 4), LockOptions::no_wait()).await?;
    left.ok_or("held")?.release().await?;
    locks.close().await;
    Ok(())
}
