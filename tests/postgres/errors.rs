//! Conversion of a `LockError` to Diesel's error by `?`, and back.

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions};
use diesel::pg::PgConnection;
use diesel::result::Error;
use diesel::{Connection, QueryResult};
use testkit::observer::Observe;
use testkit::server::{block, connect, fresh_key};

fn lock_error(error: Error) -> LockError {
    match error {
        Error::QueryBuilderError(error) => *error.downcast().expect("a LockError"),
        error => panic!("{error:?} hides no LockError"),
    }
}

#[test]
fn a_lock_error_comes_out_as_it_went_in() {
    fn body(conn: &mut PgConnection, key: &LockKey) -> QueryResult<()> {
        conn.acquire_advisory_lock(key, LockOptions::no_wait())?
            .release()?;
        Ok(())
    }
    let key = fresh_key();
    let (mut holder, mut conn) = (connect(), connect());
    let _guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let error = lock_error(body(&mut conn, &key).unwrap_err());
    assert_eq!(error.kind(), LockErrorKind::HeldElsewhere);
    assert_eq!(error.key(), Some(&key));

    // Through a transaction of Diesel's, which rolls back.
    let rolled_back = conn.transaction(|conn| {
        conn.acquire_advisory_xact_lock(&key, LockOptions::no_wait())?;
        QueryResult::Ok(())
    });
    assert_eq!(
        lock_error(rolled_back.unwrap_err()).kind(),
        LockErrorKind::HeldElsewhere
    );
}

#[test]
fn the_source_is_diesels_own_error() {
    let mut conn = connect();
    let mut guard = conn.acquire_advisory_lock(fresh_key(), block()).unwrap();
    guard.run("BEGIN");
    diesel::connection::SimpleConnection::batch_execute(&mut *guard, "SELECT 1 / 0").unwrap_err();
    let error = lock_error(Error::from(guard.release().unwrap_err()));
    assert_eq!(error.kind(), LockErrorKind::Database);
    let error = error.into_client_error::<std::fmt::Error>().unwrap_err();
    let source = error.into_client_error::<Error>().unwrap();
    assert!(matches!(source, Error::DatabaseError(..)), "{source:?}");
}
