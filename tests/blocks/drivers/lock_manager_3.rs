#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use advisory_locking::LockOptions;

    let db = sea_orm::Database::connect(std::env::var("DATABASE_URL")?).await?;
    let locker = for_short_turns(db)?;
    locker.acquire("key", LockOptions::no_wait()).await?.release().await?;
    locker.close().await;
    Ok(())
}
