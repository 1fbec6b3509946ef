use sea_orm_migration::sea_orm::{ConnectOptions, ConnectionTrait, Database};

struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateArticles)]
    }
}

struct CreateArticles;

impl MigrationName for CreateArticles {
    fn name(&self) -> &str {
        "m20260101_000001_create_articles"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateArticles {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Not `IF NOT EXISTS`: a second run fails.
        let create = "CREATE TABLE articles (title text)";
        manager.get_connection().execute_unprepared(create).await.map(drop)
    }
}

/// A pool of one connection.
async fn replica(schema: String) -> Result<(), DbErr> {
    let mut options = ConnectOptions::new(std::env::var("DATABASE_URL").expect("a server"));
    options.max_connections(1).set_schema_search_path(schema).sqlx_logging(false);
    migrate::<Migrator>(&Database::connect(options).await?).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = Database::connect(std::env::var("DATABASE_URL")?).await?;
    let schema = format!("advisory_locking_sea_{}", std::process::id());
    db.execute_unprepared(&format!("CREATE SCHEMA {schema}")).await?;
    let replicas = [(); 3].map(|()| tokio::spawn(replica(schema.clone())));
    let mut outcomes = Vec::new();
    for replica in replicas {
        outcomes.push(replica.await?);
    }
    db.execute_unprepared(&format!("DROP SCHEMA {schema} CASCADE")).await?;
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(())]);
    Ok(())
}
