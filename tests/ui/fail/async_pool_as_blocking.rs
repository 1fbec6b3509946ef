//! An async pool where a blocking one is needed.

use advisory_locking::LockError;
use advisory_locking::lock_manager::LockManager;
use sqlx::PgPool;

fn lock_manager(pool: PgPool) -> Result<LockManager, LockError> {
    LockManager::over_blocking_pool(pool)
}

fn main() {}
