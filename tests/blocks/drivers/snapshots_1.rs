fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let mut conn = PgConnection::establish(&url)?;
    assert_eq!(close_the_month(&mut conn)?, 1);
    conn.acquire_advisory_lock("close-the-month", LockOptions::no_wait())?.release()?;
    Ok(())
}
