#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8::Pool};
    use diesel_async::{AsyncPgConnection, RunQueryDsl};

    let url = std::env::var("DATABASE_URL")?;
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
    let pool = Pool::builder().max_size(2).build(manager).await?;
    let inner = pool.clone();
    let ran = run_job(&pool, "mail", async |conn| {
        let second = run_job(&inner, "mail", async |_| diesel::QueryResult::Ok(())).await?;
        assert_eq!(second, None);
        diesel::sql_query("SELECT 1").execute(conn).await
    })
    .await?;
    assert_eq!(ran, Some(1));
    Ok(())
}
