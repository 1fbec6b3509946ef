#[derive(QueryableByName)]
struct Index {
    #[diesel(sql_type = diesel::sql_types::Bool)]
    valid: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let schema = format!("advisory_locking_blocks_{}", std::process::id());
    let connect = || {
        let mut conn = PgConnection::establish(&url).expect("a server");
        conn.batch_execute(&format!("SET search_path TO {schema}")).expect("a setting");
        conn
    };
    let mut conn = connect();
    conn.batch_execute(&format!("CREATE SCHEMA {schema}; CREATE TABLE articles (title text)"))?;
    let replicas = std::thread::scope(|scope| {
        let replicas = [(); 3].map(|()| scope.spawn(|| migrate(&mut connect())));
        replicas.map(|replica| replica.join().expect("no panic"))
    });
    let index: Index =
        diesel::sql_query("SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = 'by_title'::regclass")
            .get_result(&mut conn)?;
    conn.batch_execute(&format!("DROP SCHEMA {schema} CASCADE"))?;
    assert_eq!(replicas, [Ok(()), Ok(()), Ok(())]);
    assert!(index.valid);
    Ok(())
}
