#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use advisory_locking::LockOptions;

    let locks = for_tests(sea_orm::Database::connect("sqlite::memory:").await?)?;
    let held = locks.acquire("key", LockOptions::no_wait()).await?;
    assert!(locks.try_acquire("key", LockOptions::no_wait()).await?.is_none());
    held.release().await?;
    locks.acquire("key", LockOptions::no_wait()).await?.release().await?;
    Ok(())
}
