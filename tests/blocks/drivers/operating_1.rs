
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::builder()
        .max_size(2)
        .build(ConnectionManager::new(std::env::var("DATABASE_URL")?))?;
    assert_eq!(holders(&pool)?, "not held");
    let guard = pool.acquire_advisory_lock(
        "operating-nightly-report",
        advisory_locking::LockOptions::no_wait(),
    )?;
    let text = holders(&pool)?;
    assert!(text.starts_with("held by pid "), "{text}");
    guard.release()?;
    Ok(())
}
