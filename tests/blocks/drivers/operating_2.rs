#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel_async::AsyncPgConnection;
    use diesel_async::pooled_connection::AsyncDieselConnectionManager;
    use diesel_async::pooled_connection::bb8::Pool;

    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(std::env::var("DATABASE_URL")?);
    let pool = Pool::builder().max_size(2).build(manager).await?;
    let locks = LockManager::over_async_pool(pool.clone())?;
    let guard = locks
        .acquire("operating-2", advisory_locking::LockOptions::no_wait())
        .await?;
    let text = page(&locks);
    assert!(text.contains("\"operating-2\""), "{text}");
    guard.release().await?;
    locks.close().await;
    Ok(())
}
