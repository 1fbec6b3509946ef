//! SeaORM's `DatabaseConnection`, a pool of one connection.

use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::{
    AsyncPooledAdvisoryLocking, AsyncTransactionAdvisoryLocking, LockError, LockErrorKind, LockKey,
    LockOptions,
};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr, TransactionTrait,
};

use crate::adapters::{Adapter, Call, calls};

pub(crate) struct SeaOrm(DatabaseConnection);

async fn body(db: &mut PinnedConnection) -> Result<(), LockError> {
    let slept = db.execute_unprepared("SELECT pg_sleep(0.005)").await;
    slept.map(drop).map_err(failed)
}

fn failed(error: DbErr) -> LockError {
    LockError::new(LockErrorKind::Database).with_source(error)
}

/// A pool of one connection.
pub(crate) async fn open(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await.unwrap()
}

impl Adapter for SeaOrm {
    const NAME: &str = "SeaORM";

    async fn open(url: &str) -> Self {
        Self(open(url).await)
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        calls!(self.0, call, key, options, {
            let tx = self.0.begin().await.map_err(failed)?;
            if matches!(call, Call::TryInTransaction) {
                tx.try_acquire_advisory_xact_lock(key, options).await?;
            } else {
                tx.acquire_advisory_xact_lock(key, options).await?;
            }
            tx.commit().await.map_err(failed)
        })
    }

    async fn check(&mut self) {
        self.0.execute_unprepared("SELECT 1").await.unwrap();
    }
}
