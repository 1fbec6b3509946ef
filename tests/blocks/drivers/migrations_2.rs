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

struct WithIndex;

#[async_trait::async_trait]
impl MigratorTrait for WithIndex {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateArticles), Box::new(CreateIndex)]
    }
}

struct CreateIndex;

impl MigrationName for CreateIndex {
    fn name(&self) -> &str {
        "m20260101_000002_create_index"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateIndex {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let create = "CREATE INDEX CONCURRENTLY by_title ON articles (title)";
        manager.get_connection().execute_unprepared(create).await.map(drop)
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }
}

async fn pool(schema: &str, size: u32) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(std::env::var("DATABASE_URL").expect("a server"));
    options.max_connections(size).set_schema_search_path(schema).sqlx_logging(false);
    Database::connect(options).await
}

async fn replica(schema: String) -> Result<(), DbErr> {
    migrate::<Migrator>(&pool(&schema, 1).await?).await
}

async fn replica_outside(schema: String) -> Result<(), DbErr> {
    migrate_outside::<WithIndex>(&pool(&schema, 2).await?).await
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
    let replicas = [(); 3].map(|()| tokio::spawn(replica_outside(schema.clone())));
    for replica in replicas {
        outcomes.push(replica.await?);
    }
    db.execute_unprepared(&format!("DROP SCHEMA {schema} CASCADE")).await?;
    assert_eq!(outcomes, vec![Ok(()); 6]);
    Ok(())
}
