fn main() -> Result<(), Box<dyn std::error::Error>> {
    use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind};

    let pool = Pool::builder().max_size(2).build(ConnectionManager::new(std::env::var("DATABASE_URL")?))?;
    export(pool.clone())?;
    let mut other = pool.get()?;
    let _held = other.acquire_advisory_lock("nightly-export", LockOptions::no_wait())?;
    let refused = export(pool.clone()).expect_err("held elsewhere").downcast::<LockError>()?;
    assert_eq!(refused.kind(), LockErrorKind::HeldElsewhere);
    Ok(())
}
