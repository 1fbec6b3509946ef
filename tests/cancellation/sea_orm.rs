//! SeaORM's `DatabaseConnection`, a pool of one connection.

use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::{AsyncPooledAdvisoryLocking, LockError, LockKey, LockOptions};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr};

use crate::adapters::{Adapter, Call, calls};
use crate::observer::database_url;

pub(crate) struct SeaOrm(DatabaseConnection);

async fn body(db: &mut PinnedConnection) -> Result<(), LockError> {
    let slept = db.execute_unprepared("SELECT pg_sleep(0.005)").await;
    slept.map(drop).map_err(|error: DbErr| {
        LockError::new(advisory_locking::LockErrorKind::Database).with_source(error)
    })
}

impl Adapter for SeaOrm {
    const NAME: &str = "SeaORM";

    async fn open() -> Self {
        let mut options = ConnectOptions::new(database_url());
        options.max_connections(1).sqlx_logging(false);
        Self(Database::connect(options).await.unwrap())
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        calls!(self.0, call, key, options, body)
    }

    async fn check(&mut self) {
        self.0.execute_unprepared("SELECT 1").await.unwrap();
    }
}
