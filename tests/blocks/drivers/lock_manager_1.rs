#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel_async::pooled_connection::AsyncDieselConnectionManager;

    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(std::env::var("DATABASE_URL")?);
    let pool = Pool::builder().max_size(4).build(manager).await?;
    let locker = start(&pool).await?;
    tokio::try_join!(sync(&locker, &pool, 4), sync(&locker, &pool, 4), sync(&locker, &pool, 5))?;
    // All of them have given back what they took.
    let left = locker.try_acquire(("sync", 4), LockOptions::no_wait()).await?;
    left.ok_or("held")?.release().await?;
    locker.close().await;
    Ok(())
}
