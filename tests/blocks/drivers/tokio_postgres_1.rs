#[tokio::main]
async fn main() -> Result<(), Error> {
    let config = std::env::var("DATABASE_URL")?.parse()?;
    let manager = PostgresConnectionManager::new(config, NoTls);
    let pool = bb8::Pool::builder().max_size(2).build(manager).await?;
    assert_eq!(sync(&pool, 4).await?, Some(1));
    let key = ("sync-addresses", 4);
    let held = pool.acquire_advisory_lock(key, LockOptions::no_wait()).await?;
    assert_eq!(sync(&pool, 4).await?, None);
    held.release().await?;
    Ok(())
}
