#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = sea_orm::Database::connect(std::env::var("DATABASE_URL")?).await?;
    let (locks, other) = (LockManager::over_async_pool(db.clone())?, LockManager::over_async_pool(db)?);
    invoice(&locks).await?;
    let held = other.acquire("nightly-invoices", LockOptions::no_wait()).await?;
    let refused = invoice(&locks).await.expect_err("held elsewhere");
    assert_eq!(refused.kind(), advisory_locking::LockErrorKind::HeldElsewhere);
    held.release().await?;
    Ok(())
}
