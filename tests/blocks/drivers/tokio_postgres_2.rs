fn main() -> Result<(), Error> {
    let config = std::env::var("DATABASE_URL")?.parse()?;
    let pool = Pool::builder()
        .max_size(2)
        .build(PostgresConnectionManager::new(config, NoTls))?;
    assert_eq!(run_job(&pool, 4)?, Some(1));
    let key = ("run-job", 5_i64);
    let held = pool.acquire_advisory_lock(key, LockOptions::no_wait())?;
    let no_wait = LockOptions::no_wait();
    assert_eq!(
        pool.try_with_advisory_xact_lock(key, no_wait, |_| Ok::<_, Error>(()))?,
        None
    );
    held.release()?;
    assert_eq!(run_job(&pool, 5)?, Some(1));
    Ok(())
}
