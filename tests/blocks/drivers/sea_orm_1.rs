#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use sea_orm::{ConnectOptions, Database};

    // A pool of one connection is enough, as the page says; and both databases.
    for url in [std::env::var("DATABASE_URL")?, "sqlite::memory:".to_owned()] {
        let connect = || Database::connect(ConnectOptions::new(&url).max_connections(1).to_owned());
        let (db, other) = (connect().await?, connect().await?);
        assert_eq!(sync(&db, 4).await?, Some(()));
        let held = other.acquire_advisory_lock(("sync-catalog", 4), LockOptions::no_wait()).await?;
        let expected = if url.starts_with("postgres") { None } else { Some(()) };
        assert_eq!(sync(&db, 4).await?, expected);
        held.release().await?;
    }
    Ok(())
}
