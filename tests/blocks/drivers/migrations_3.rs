fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel::connection::SimpleConnection;
    use diesel_migrations::FileBasedMigrations;

    let url = std::env::var("DATABASE_URL")?;
    let schema = format!("advisory_locking_diesel_{}", std::process::id());
    let directory = std::env::temp_dir().join(&schema);
    let migration = directory.join("2026-01-01-000001_create_articles");
    std::fs::create_dir_all(&migration)?;
    // Not `IF NOT EXISTS`: a second run fails.
    std::fs::write(migration.join("up.sql"), "CREATE TABLE articles (title text)")?;
    std::fs::write(migration.join("down.sql"), "DROP TABLE articles")?;
    let mut conn = PgConnection::establish(&url)?;
    conn.batch_execute(&format!("CREATE SCHEMA {schema}"))?;
    let parameter = if url.contains('?') { '&' } else { '?' };
    let in_schema = format!("{url}{parameter}options=-csearch_path%3D{schema}");
    let replica = || {
        let manager = ConnectionManager::new(&in_schema);
        let pool = Pool::builder().max_size(1).build(manager).expect("a pool");
        let source = FileBasedMigrations::from_path(&directory).expect("a directory");
        migrate(&pool, source).map_err(|error| error.to_string())
    };
    let outcomes = std::thread::scope(|scope| {
        let replicas = [(); 3].map(|()| scope.spawn(replica));
        replicas.map(|replica| replica.join().expect("no panic"))
    });
    conn.batch_execute(&format!("DROP SCHEMA {schema} CASCADE"))?;
    std::fs::remove_dir_all(&directory)?;
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(())]);
    Ok(())
}
