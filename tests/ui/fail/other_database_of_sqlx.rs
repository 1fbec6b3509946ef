//! A pool of sqlx for any database, as `AnyPool` and `MySqlPool` are.

use advisory_locking::{AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking};
use sqlx::{Database, Pool};

fn needs_locks(_: &impl AsyncPooledAdvisoryLocking) {}

fn needs_locks_on_a_connection(_: &mut impl AsyncAdvisoryLocking) {}

fn pool<D: Database>(pool: &Pool<D>) {
    needs_locks(pool);
}

fn connection<D: Database>(conn: &mut D::Connection) {
    needs_locks_on_a_connection(conn);
}

fn main() {}
