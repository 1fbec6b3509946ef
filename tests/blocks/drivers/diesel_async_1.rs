#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel_async::AsyncConnection;

    let url = std::env::var("DATABASE_URL")?;
    let mut conn = AsyncPgConnection::establish(&url).await?;
    let mut other = AsyncPgConnection::establish(&url).await?;
    assert_eq!(sync(&mut conn, 4).await?, Some(1));
    let held = other.acquire_advisory_lock(("sync-mailbox", 4), LockOptions::no_wait()).await?;
    assert_eq!(sync(&mut conn, 4).await?, None);
    held.release().await?;
    Ok(())
}
