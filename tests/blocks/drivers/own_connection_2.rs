#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel_async::pooled_connection::AsyncDieselConnectionManager;

    let url = std::env::var("DATABASE_URL")?;
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
    let pool = Pool::builder().max_size(2).build(manager).await?;
    let leader = Leader::elect(&pool).await?.expect("no other session leads");
    assert!(Leader::elect(&pool).await?.is_none());
    leader.resign().await?;
    assert!(Leader::elect(&pool).await?.is_some());
    Ok(())
}
