#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let mut other = AsyncPgConnection::establish(&url).await?;
    let leader = other.acquire_advisory_lock("gold_leader", LockOptions::no_wait()).await?;
    let refused = lead(&url).await.expect_err("there is a leader");
    let refused = refused.downcast::<advisory_locking::LockError>()?;
    assert_eq!(refused.kind(), advisory_locking::LockErrorKind::HeldElsewhere);
    leader.release().await?;
    lead(&url).await?;
    // It has released the lock.
    other.acquire_advisory_lock("gold_leader", LockOptions::no_wait()).await?.release().await?;
    Ok(())
}
