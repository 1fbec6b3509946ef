#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = sea_orm::Database::connect(std::env::var("DATABASE_URL")?).await?;
    let (locker, other) = (LockManager::new(db.clone())?, LockManager::new(db)?);
    report(&locker).await?;
    let held = other.acquire("nightly-report", LockOptions::no_wait()).await?;
    let refused = report(&locker).await.expect_err("held elsewhere");
    assert_eq!(refused.kind(), advisory_locking::LockErrorKind::HeldElsewhere);
    held.release().await?;
    Ok(())
}
