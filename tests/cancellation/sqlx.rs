//! sqlx: a `PgConnection`, and a pool of one connection.

use std::time::Duration;

use ::sqlx::postgres::PgPoolOptions;
use ::sqlx::{Connection, PgConnection, PgPool};
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockKey,
    LockOptions,
};

use crate::adapters::{Adapter, Call, calls};
use crate::timeouts::LIMIT;

async fn body<C: AsMut<PgConnection> + Send>(conn: &mut C) -> Result<(), LockError> {
    let slept = ::sqlx::query("SELECT pg_sleep(0.005)").execute(conn.as_mut());
    slept.await.map(drop).map_err(failed)
}

fn failed(error: ::sqlx::Error) -> LockError {
    LockError::new(LockErrorKind::Database).with_source(error)
}

/// Makes a call inside the caller's transaction.
async fn in_transaction(
    conn: &mut PgConnection,
    call: Call,
    key: &LockKey,
    options: LockOptions,
) -> Result<(), LockError> {
    let mut tx = conn.begin().await.map_err(failed)?;
    if matches!(call, Call::TryInTransaction) {
        tx.try_acquire_advisory_xact_lock(key, options).await?;
    } else {
        tx.acquire_advisory_xact_lock(key, options).await?;
    }
    tx.commit().await.map_err(failed)
}

pub(crate) struct Borrowed {
    conn: PgConnection,
    url: String,
}

impl Adapter for Borrowed {
    const NAME: &str = "&mut sqlx::PgConnection";
    const SHORT_LIMIT: Duration = LIMIT;
    const ROLLS_BACK_BEHIND_A_COMMIT: bool = true;

    async fn open(url: &str) -> Self {
        Self {
            conn: PgConnection::connect(url).await.unwrap(),
            url: url.to_owned(),
        }
    }

    async fn call(
        &mut self,
        call: Call,
        key: &LockKey,
        options: LockOptions,
    ) -> Result<(), LockError> {
        let conn = &mut self.conn;
        calls!(conn, call, key, options, {
            in_transaction(conn, call, key, options).await
        })
    }

    /// sqlx rolls a dropped transaction back with the next statement.
    async fn flush(&mut self, call: Call) {
        if matches!(call, Call::InTransaction | Call::TryInTransaction) {
            let _ = self.conn.ping().await;
        }
    }

    /// Replaces a connection whose session was terminated.
    async fn check(&mut self) {
        if ::sqlx::query("SELECT 1")
            .execute(&mut self.conn)
            .await
            .is_err()
        {
            self.conn = PgConnection::connect(&self.url).await.unwrap();
        }
    }
}

/// A pool of one connection.
pub(crate) struct Pooled(PgPool);

pub(crate) async fn open(url: &str) -> PgPool {
    let options = PgPoolOptions::new().max_connections(1);
    options.connect(url).await.unwrap()
}

impl Adapter for Pooled {
    const NAME: &str = "sqlx::PgPool";
    const ROLLS_BACK_BEHIND_A_COMMIT: bool = true;

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
            let mut conn = self.0.acquire().await.map_err(failed)?;
            in_transaction(&mut conn, call, key, options).await
        })
    }

    async fn check(&mut self) {
        ::sqlx::query("SELECT 1").execute(&self.0).await.unwrap();
    }
}
