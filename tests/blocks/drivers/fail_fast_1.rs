// Tests the error kinds that the block's own test does not.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut conn = PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
    sign_up(&mut conn, "a@b.c").expect("a free address");
    let outside = conn.acquire_advisory_xact_lock("outside", LockOptions::no_wait()).unwrap_err();
    match SignupError::from(outside) {
        SignupError::Lock(error) => assert_eq!(error.kind(), LockErrorKind::NotInTransaction),
        other => panic!("{other:?}"),
    }
    match SignupError::from(diesel::result::Error::NotFound) {
        SignupError::Database(error) => assert_eq!(error, diesel::result::Error::NotFound),
        other => panic!("{other:?}"),
    }
    Ok(())
}
