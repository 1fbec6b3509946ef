//! Clients of SeaORM. They drop some futures, and some bodies write in a nested transaction.

use std::time::Duration;

use advisory_locking::AsyncPooledAdvisoryLocking;
use advisory_locking::backends::sea_orm::PinnedConnection;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr, Statement,
    TransactionTrait,
};

use super::asynchronous::{Source, run_clients, source};
use super::{CLIENTS, Shared, url};
use crate::history::Mode;
use crate::work::{Body, CallKind, Failure, PlannedCall, Reading, key};

pub(super) fn run(shared: &Shared) {
    let mut options = ConnectOptions::new(url());
    options
        .max_connections(CLIENTS)
        .acquire_timeout(Duration::from_secs(2))
        .connect_lazy(true)
        .sqlx_logging(false);
    run_clients(shared, CLIENTS, async {
        Database::connect(options).await.unwrap()
    });
}

source!(DatabaseConnection, PinnedConnection);

async fn body(
    db: &mut PinnedConnection,
    plan: PlannedCall,
    shared: &Shared,
) -> Result<(), Failure> {
    let mut body = Body::begin(plan, &shared.recorder, &shared.storage);
    body.read(&read(db, plan).await?);
    tokio::time::sleep(plan.pause).await;
    match plan.mode {
        Mode::Exclusive => {
            let number = body.writes();
            if plan.call % 2 == 0 {
                let tx = db.begin().await?;
                tx.execute_unprepared(&plan.update_sql(number)).await?;
                tx.commit().await?;
            } else {
                db.execute_unprepared(&plan.update_sql(number)).await?;
            }
            body.wrote(number);
        }
        Mode::Shared => body.read_again(&read(db, plan).await?),
    }
    Ok(())
}

async fn read(db: &PinnedConnection, plan: PlannedCall) -> Result<Reading, DbErr> {
    let statement = Statement::from_string(db.get_database_backend(), plan.select_sql());
    let row = db.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the counter".to_owned()))?;
    Ok(Reading::new(
        row.try_get_by_index(0)?,
        row.try_get_by_index(1)?,
    ))
}
