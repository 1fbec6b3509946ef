#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SQLite's in `cargo test`, which compiles this driver and does not run it.
    let pool = sqlx::Pool::connect(&std::env::var("DATABASE_URL")?).await?;
    assert_eq!(count(&pool, 4).await?, Some(()));
    Ok(())
}
