fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    // One connection is enough, as the page says.
    let pool = Pool::builder().max_size(1).build(ConnectionManager::<PgConnection>::new(&url))?;
    assert_eq!(report(&pool)?, 1);
    let mut other = PgConnection::establish(&url)?;
    let _held = advisory_locking::AdvisoryLocking::acquire_advisory_lock(&mut other, "monthly-report", LockOptions::no_wait())?;
    assert!(report(&pool).is_err());
    Ok(())
}
