fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut conn = PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
    diesel::sql_query("CREATE TEMPORARY TABLE pull_requests (id bigint)").execute(&mut conn)?;
    let created = [on_pull_request_opened(&mut conn, 17)?, on_pull_request_opened(&mut conn, 17)?];
    assert_eq!(created, [true, false]);
    let rows: i64 = pull_requests::table.count().get_result(&mut conn)?;
    assert_eq!(rows, 1);
    Ok(())
}
