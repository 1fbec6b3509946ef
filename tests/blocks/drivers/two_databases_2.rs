#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use deadpool_postgres::{Manager, Pool};

    let config = std::env::var("DATABASE_URL")?.parse()?;
    let pool = Pool::builder(Manager::new(config, tokio_postgres::NoTls)).build()?;
    let locks = LockManager::over_async_pool(pool)?;
    assert_eq!(draw(&locks, 4).await, 200);
    locks.close().await;
    assert_eq!(draw(&locks, 4).await, 500);
    Ok(())
}
