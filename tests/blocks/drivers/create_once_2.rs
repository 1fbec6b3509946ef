#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    let schema = format!("advisory_locking_events_{}", std::process::id());
    let server: PgConnectOptions = std::env::var("DATABASE_URL")?.parse()?;
    let options = server.options([("search_path", &schema)]);
    let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await?;
    let run = async |statement: String| sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await;
    run(format!("CREATE SCHEMA {schema}; CREATE TABLE events (id bigint)")).await?;
    let (first, second) = tokio::join!(on_event(&pool, 17), on_event(&pool, 17));
    run(format!("DROP SCHEMA {schema} CASCADE")).await?;
    assert_ne!(first?, second?, "one of the deliveries creates the row");
    Ok(())
}
