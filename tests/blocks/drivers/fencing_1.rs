fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let (mut conn, mut elsewhere) = (PgConnection::establish(&url)?, PgConnection::establish(&url)?);
    diesel::sql_query("CREATE TEMPORARY SEQUENCE report_token").execute(&mut conn)?;
    diesel::sql_query("CREATE TEMPORARY TABLE reports (day text PRIMARY KEY, body text, token bigint NOT NULL)").execute(&mut elsewhere)?;
    assert!(report(&mut conn, &mut elsewhere, "monday")?);
    assert!(report(&mut conn, &mut elsewhere, "monday")?);
    // A later holder was there.
    diesel::sql_query("UPDATE reports SET token = 100").execute(&mut elsewhere)?;
    assert!(!report(&mut conn, &mut elsewhere, "monday")?);
    Ok(())
}
