use advisory_locking::AsyncAdvisoryLocking;
use diesel_async::AsyncConnection;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let pool = Pool::builder().build(AsyncDieselConnectionManager::new(&url)).await?;
    assert_eq!(render(&pool, 7).await, 200);
    let mut other = AsyncPgConnection::establish(&url).await?;
    let guard = other.acquire_advisory_lock(("render-page", 7), LockOptions::no_wait()).await?;
    assert_eq!(render(&pool, 7).await, 503);
    assert_eq!(render(&pool, 8).await, 200, "another client");
    guard.release().await?;
    Ok(())
}
