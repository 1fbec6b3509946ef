fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let (mut conn, mut other) = (PgConnection::establish(&url)?, PgConnection::establish(&url)?);
    let held = other.acquire_advisory_lock(("sync-invoices", "diesel"), LockOptions::no_wait())?;
    assert_eq!(sync(&mut conn, 4)?, Some(1));
    held.release()?;
    let _held = other.acquire_advisory_lock(("sync-invoices", 4), LockOptions::no_wait())?;
    assert_eq!(sync(&mut conn, 4)?, None);
    Ok(())
}
