#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel_async::AsyncConnection;

    let url = std::env::var("DATABASE_URL")?;
    let mut store = AsyncPgConnection::establish(&url).await?;
    diesel::sql_query("CREATE TEMPORARY TABLE reports (day text PRIMARY KEY, body text, token bigint)").execute(&mut store).await?;
    let locks = LockManager::over_async_pool(sea_orm::Database::connect(url).await?)?;
    assert!(report(&locks, &mut store, "monday").await?);
    assert!(report(&locks, &mut store, "monday").await?);
    // A later holder was there.
    diesel::sql_query("UPDATE reports SET token = 9223372036854775807").execute(&mut store).await?;
    assert!(!report(&locks, &mut store, "monday").await?);
    locks.close().await;
    Ok(())
}
