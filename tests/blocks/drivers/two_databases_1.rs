#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = open(&std::env::var("DATABASE_URL")?).await;
    assert!(render(&pool, 4).await?);
    let other = pool.acquire_advisory_lock(("render", 5), LockOptions::no_wait()).await?;
    assert!(render(&pool, 4).await?, "another client");
    other.release().await?;
    assert!(render(&pool, 5).await?);
    Ok(())
}
