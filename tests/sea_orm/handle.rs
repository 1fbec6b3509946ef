//! The body's handle replaces SeaORM's connection, and is one connection.

use advisory_locking::AsyncPooledAdvisoryLocking;
use advisory_locking::backends::sea_orm::PinnedConnection;
use futures_util::TryStreamExt;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::entity::prelude::*;
use sea_orm::{
    DatabaseConnection, DbErr, FromQueryResult, LoaderTrait, QueryOrder, Statement, StreamTrait,
    TransactionSession, TransactionTrait,
};
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key};

use crate::entities::{car, driver, make_tables};
use crate::open::{NO_WAIT, number, pid, postgres, sqlite};

/// Uses every kind of statement that SeaORM has.
async fn use_all_of_sea_orm<C>(db: &C)
where
    C: ConnectionTrait + StreamTrait + TransactionTrait,
{
    // Active models, with and without a value for a nullable column.
    for name in ["ada", "bob", "cyd"] {
        let name = Set(name.to_owned());
        let driver = driver::ActiveModel { id: NotSet, name }
            .insert(db)
            .await
            .unwrap();
        for plate in [Some(format!("{}-1", driver.name)), None] {
            let car = car::ActiveModel {
                id: NotSet,
                driver_id: Set(driver.id),
                plate: Set(plate),
            };
            car.insert(db).await.unwrap();
        }
    }

    // Entities: find, filter, update, delete.
    let ada = driver::Entity::find()
        .filter(driver::Column::Name.eq("ada"))
        .one(db)
        .await
        .unwrap()
        .unwrap();
    let mut renamed = driver::ActiveModel::from(ada.clone());
    renamed.name = Set("ann".to_owned());
    assert_eq!(renamed.update(db).await.unwrap().name, "ann");
    let gone = driver::Entity::delete_many()
        .filter(driver::Column::Name.eq("unknown"))
        .exec(db)
        .await
        .unwrap();
    assert_eq!(gone.rows_affected, 0);
    assert!(
        driver::Entity::find_by_id(-1)
            .one(db)
            .await
            .unwrap()
            .is_none()
    );

    // Relations in one query, in two queries, and lazily.
    let together = driver::Entity::find()
        .order_by_asc(driver::Column::Id)
        .find_with_related(car::Entity)
        .all(db)
        .await
        .unwrap();
    assert_eq!(
        together
            .iter()
            .map(|(_, cars)| cars.len())
            .collect::<Vec<_>>(),
        [2, 2, 2]
    );
    let drivers = driver::Entity::find()
        .order_by_asc(driver::Column::Id)
        .all(db)
        .await
        .unwrap();
    assert_eq!(drivers.load_many(car::Entity, db).await.unwrap().len(), 3);
    let cars = ada
        .find_related(car::Entity)
        .order_by_asc(car::Column::Id)
        .all(db)
        .await
        .unwrap();
    assert_eq!(cars[0].plate.as_deref(), Some("ada-1"));
    assert_eq!(cars[1].plate, None);
    let also = car::Entity::find()
        .find_also_related(driver::Entity)
        .one(db)
        .await
        .unwrap();
    assert!(also.unwrap().1.is_some());

    // Paginators.
    let mut pages = driver::Entity::find()
        .order_by_asc(driver::Column::Id)
        .paginate(db, 2);
    assert_eq!(
        pages.num_items_and_pages().await.unwrap().number_of_pages,
        2
    );
    let (mut sizes, mut names) = (Vec::new(), Vec::new());
    while let Some(page) = pages.fetch_and_next().await.unwrap() {
        sizes.push(page.len());
        names.extend(page.into_iter().map(|driver| driver.name));
    }
    assert_eq!(
        (sizes, names),
        (
            vec![2, 1],
            vec!["ann".to_owned(), "bob".to_owned(), "cyd".to_owned()]
        )
    );

    // Raw statements, with values.
    #[derive(FromQueryResult)]
    struct Named {
        name: String,
    }
    let statement = Statement::from_sql_and_values(
        ConnectionTrait::get_database_backend(db),
        "SELECT name FROM driver WHERE id = $1",
        [ada.id.into()],
    );
    let named = Named::find_by_statement(statement).one(db).await.unwrap();
    assert_eq!(named.unwrap().name, "ann");
    assert_eq!(number(db, "SELECT COUNT(*) FROM car").await, 6);
    let tx = db.begin().await.unwrap();
    tx.execute_unprepared("SELECT no_such_function()")
        .await
        .unwrap_err();
    tx.rollback().await.unwrap();

    // Streams, read to the end and dropped early.
    let streamed: Vec<_> = driver::Entity::find()
        .stream(db)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(streamed.len(), 3);
    let mut cut_short = car::Entity::find().stream(db).await.unwrap();
    assert!(cut_short.try_next().await.unwrap().is_some());
    drop(cut_short);
    assert_eq!(number(db, "SELECT COUNT(*) FROM driver").await, 3);

    // Transactions: committed, rolled back, dropped, nested, and with a closure.
    assert_eq!(written_by(db, async |tx| tx.commit().await).await, 1);
    assert_eq!(written_by(db, async |tx| tx.rollback().await).await, 0);
    assert_eq!(
        written_by(db, async |tx| {
            drop(tx);
            Ok(())
        })
        .await,
        0
    );
    let nested = async |tx: C::Transaction| {
        insert(&tx.begin().await?).await?; // dropped
        let inner = tx.begin().await?;
        insert(&inner).await?;
        inner.commit().await?;
        let inner = tx.begin().await?;
        insert(&inner).await?;
        inner.rollback().await?;
        tx.commit().await
    };
    assert_eq!(written_by(db, nested).await, 2);
    let before = count(db).await;
    let closure = db.transaction::<_, _, DbErr>(|tx| Box::pin(async move { insert(tx).await }));
    closure.await.unwrap();
    let failing = db.transaction::<_, (), DbErr>(|tx| {
        Box::pin(async move {
            insert(tx).await?;
            Err(DbErr::Custom("no".to_owned()))
        })
    });
    failing.await.unwrap_err();
    assert_eq!(count(db).await, before + 1);
}

/// Counts the drivers that a transaction adds which inserts one and then ends with `end`.
async fn written_by<C: ConnectionTrait + TransactionTrait>(
    db: &C,
    end: impl AsyncFnOnce(C::Transaction) -> Result<(), DbErr>,
) -> i64 {
    let before = count(db).await;
    let tx = db.begin().await.unwrap();
    insert(&tx).await.unwrap();
    end(tx).await.unwrap();
    count(db).await - before
}

async fn insert(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    let name = Set("in a transaction".to_owned());
    driver::ActiveModel { id: NotSet, name }
        .insert(db)
        .await
        .map(drop)
}

async fn count(db: &impl ConnectionTrait) -> i64 {
    number(db, "SELECT COUNT(*) FROM driver").await
}

async fn with_lock(db: &DatabaseConnection) {
    db.with_advisory_lock(fresh_key(), NO_WAIT, async |db: &mut PinnedConnection| {
        make_tables(db).await;
        use_all_of_sea_orm(db).await;
        // In a transaction, where each transaction of the function is a savepoint.
        db.execute_unprepared("DELETE FROM car").await?;
        db.execute_unprepared("DELETE FROM driver").await?;
        let tx = db.begin().await?;
        use_all_of_sea_orm(&tx).await;
        tx.rollback().await?;
        assert_eq!(count(db).await, 0);
        Ok::<_, DbErr>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_body_uses_all_of_sea_orm_on_postgres() {
    // A statement on a second connection would time out: the pool has one only.
    with_lock(&postgres(1).await).await;
}

#[tokio::test]
async fn a_body_uses_all_of_sea_orm_on_sqlite() {
    with_lock(&sqlite().await).await;
}

/// The body of a transaction-level lock begins inside a transaction.
#[tokio::test]
async fn a_body_in_a_transaction_uses_all_of_sea_orm() {
    for db in [postgres(1).await, sqlite().await] {
        db.with_advisory_xact_lock(fresh_key(), NO_WAIT, async |db| {
            make_tables(db).await;
            use_all_of_sea_orm(db).await;
            Ok::<_, DbErr>(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn the_body_runs_on_the_session_that_holds_the_lock() {
    let (db, mut observer, key) = (postgres(3).await, connect(), fresh_key());
    db.with_advisory_lock(&key, NO_WAIT, async |db| {
        let (on_handle, in_transaction) = (pid(db).await, pid(&db.begin().await?).await);
        let holder = observer.lock_entries(&key)[0].pid;
        assert_eq!([on_handle, in_transaction], [holder; 2]);
        Ok::<_, DbErr>(())
    })
    .await
    .unwrap();
    observer.assert_free(&key, "the body").await;
}

/// The transactions of a guard may move into other tasks.
#[tokio::test]
async fn a_guard_is_a_connection() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    make_tables(&*guard).await;
    let tx = guard.begin().await.unwrap();
    let other = tokio::spawn(async move {
        insert(&tx).await.unwrap();
        tx.commit().await.unwrap();
    });
    other.await.unwrap();
    assert_eq!(count(&*guard).await, 1);
    guard.release().await.unwrap();
    observer.assert_free(&key, "the release").await;
}

#[tokio::test]
async fn concurrent_statements_run_one_after_the_other() {
    for db in [postgres(1).await, sqlite().await] {
        db.with_advisory_lock(fresh_key(), NO_WAIT, async |db| {
            make_tables(db).await;
            let (db, tx) = (&*db, &db.begin().await?);
            let (one, two, three) = tokio::join!(insert(db), insert(tx), insert(db));
            one.and(two).and(three)?;
            assert_eq!(count(tx).await, 3, "all run in the open transaction");
            Ok::<_, DbErr>(())
        })
        .await
        .unwrap();
    }
}

/// The body borrows, nests a lock and a transaction-level lock, and runs in a spawned task.
#[tokio::test]
async fn a_body_may_borrow_and_nest_in_a_spawned_task() {
    use advisory_locking::{AsyncAdvisoryLocking, AsyncTransactionAdvisoryLocking};

    let (outer, inner, innermost) = (fresh_key(), fresh_key(), fresh_key());
    let mut observer = connect();
    for db in [postgres(1).await, sqlite().await] {
        let keys = [outer.clone(), inner.clone(), innermost.clone()];
        let task = tokio::spawn(async move {
            let (mut names, [outer, inner, innermost]) = (Vec::new(), keys);
            let name = "ada".to_owned();
            db.with_advisory_lock(outer, NO_WAIT, async |db| {
                make_tables(db).await;
                db.with_advisory_lock(inner, NO_WAIT, async |db| {
                    let tx = db.begin().await?;
                    tx.acquire_advisory_xact_lock(innermost, NO_WAIT).await?;
                    let name = Set(name.clone());
                    let driver = driver::ActiveModel { id: NotSet, name };
                    names.push(driver.insert(&tx).await?.name);
                    tx.commit().await
                })
                .await
            })
            .await
            .unwrap();
            names
        });
        assert_eq!(task.await.unwrap(), ["ada"]);
    }
    for key in [outer, inner, innermost] {
        observer.assert_free(&key, "the task").await;
    }
}
