#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use advisory_locking::LockOptions;

    let locker = for_tests(sea_orm::Database::connect("sqlite::memory:").await?)?;
    let held = locker.acquire("key", LockOptions::no_wait()).await?;
    assert!(locker.try_acquire("key", LockOptions::no_wait()).await?.is_none());
    held.release().await?;
    locker.acquire("key", LockOptions::no_wait()).await?.release().await?;
    Ok(())
}
