//! Commits that fail on each client. The model does not parse SQL, so it has no such case.

use advisory_locking::LockErrorKind::CommitFailed;

use crate::actor::Outcome::{Done, Failed};
use crate::actor::{BodyEnd, LockScope, SqlCommand};
use crate::cases::assert_granted_and_released;
use crate::fixture::Fixture;
use crate::harness;

/// SQLite itself leaves the transaction open.
fn failed_commit_leaves_no_transaction(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    // SQLite's clients do not all enable it. PostgreSQL refuses the statement.
    actor.run_sql(SqlCommand::Run("PRAGMA foreign_keys = ON"));
    actor.enter(LockScope::Transaction, &key);
    for sql in [
        "CREATE TEMPORARY TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TEMPORARY TABLE child \
         (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO child VALUES (7)",
    ] {
        assert_eq!(actor.run_sql(SqlCommand::Run(sql)), Done, "{sql}");
    }
    assert_eq!(actor.end_body(BodyEnd::Ok), Failed(CommitFailed));
    assert_eq!(actor.run_sql(SqlCommand::Begin), Done);
    // Some clients have done so already.
    actor.run_sql(SqlCommand::Rollback);
    assert_granted_and_released(&actor, &key);
}

macro_rules! failed_commits {
    ($($adapter:ident => $harness:expr;)*) => {$(
        mod $adapter {
            use super::*;

            #[test]
            fn failed_commit_leaves_no_transaction() {
                Fixture::run(Box::new($harness), super::failed_commit_leaves_no_transaction);
            }
        }
    )*};
}

failed_commits! {
    diesel_postgres => harness::diesel_postgres::DIESEL.on_test_server();
    diesel_async_postgres => harness::diesel_async::DIESEL_ASYNC.on_test_server();
    sea_orm_postgres => harness::sea_orm::SEA_ORM.on_test_server();
    sqlx_postgres => harness::sqlx::SQLX.on_test_server();
    tokio_postgres => harness::tokio_postgres::TOKIO_POSTGRES.on_test_server();
    rust_postgres => harness::rust_postgres::POSTGRES.on_test_server();
    diesel_sqlite => harness::diesel_sqlite::DIESEL;
    rusqlite => harness::rusqlite::RUSQLITE;
    diesel_async_sqlite => harness::diesel_async::SQLITE;
    sea_orm_sqlite => harness::sea_orm::SQLITE;
    sqlx_sqlite => harness::sqlx::SQLITE;
}
