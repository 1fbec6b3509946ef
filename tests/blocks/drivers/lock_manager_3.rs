#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use advisory_locking::LockOptions;

    let db = sea_orm::Database::connect(std::env::var("DATABASE_URL")?).await?;
    let locks = alternate_often(db)?;
    locks.acquire("short-turns", LockOptions::no_wait()).await?.release().await?;
    locks.close().await;
    Ok(())
}
