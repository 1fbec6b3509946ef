fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let (mut first, mut second) = (PgConnection::establish(&url)?, PgConnection::establish(&url)?);
    let working = first.acquire_advisory_lock(("sync-contacts", 4), LockOptions::no_wait())?;
    assert_eq!(sync(&mut second, 4)?, "another session is syncing");
    assert_eq!(sync(&mut second, 5)?, "synced");
    working.release()?;
    assert_eq!(sync(&mut second, 4)?, "synced");
    Ok(())
}
