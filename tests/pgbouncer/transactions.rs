//! Transaction-level locks under contention, through a pooler in transaction mode, for each client.

use std::thread;
use std::time::Duration;

use advisory_locking::AsyncPooledAdvisoryLocking;
use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::backends::sqlx::PooledPgConnection;
use advisory_locking::{
    AdvisoryLocking, AsyncAdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions,
    WaitStrategy,
};
use diesel::pg::PgConnection;
use diesel::sql_types::Integer;
use diesel::{Connection, QueryResult, QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbBackend, DbErr, Statement};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection as PgConn};
use testkit::observer::Observe;
use testkit::server::connect;
use testkit::temp::TempObject;

use tokio_postgres::{Client, NoTls};

use crate::actor_async::on_runtime;
use crate::pooler::{Mode, Pooler};
use crate::unprepared::unprepared;

const CLIENTS: usize = 4;
const ROUNDS: usize = 50;
/// Fewer sessions than clients.
const SESSIONS: u32 = 2;

/// A number in a table, which clients read and write back in two statements.
struct Counter {
    table: TempObject,
    key: LockKey,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    number: i32,
}

impl Counter {
    fn create() -> Self {
        let table = TempObject::create("TABLE", "AS SELECT 0 AS number");
        let key = LockKey::from(&*table.name);
        Self { table, key }
    }

    fn read(&self) -> String {
        format!("SELECT number FROM {}", self.table.name)
    }

    fn write(&self, number: i32) -> String {
        format!("UPDATE {} SET number = {number}", self.table.name)
    }

    /// Increments the number without protection other than the lock.
    fn increment(&self, conn: &mut PgConnection) -> QueryResult<()> {
        use diesel::RunQueryDsl;
        let Number { number } = sql_query(self.read()).get_result(conn)?;
        sql_query(self.write(number + 1)).execute(conn).map(drop)
    }

    async fn increment_async(&self, conn: &mut AsyncPgConnection) -> QueryResult<()> {
        use diesel_async::RunQueryDsl;
        let Number { number } = sql_query(self.read()).get_result(conn).await?;
        sql_query(self.write(number + 1))
            .execute(conn)
            .await
            .map(drop)
    }

    async fn increment_sea_orm(&self, conn: &PinnedConnection) -> Result<(), DbErr> {
        let statement = |sql| Statement::from_string(DbBackend::Postgres, sql);
        let row = conn.query_one_raw(statement(self.read())).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound(self.table.name.clone()))?;
        let number: i32 = row.try_get_by_index(0)?;
        conn.execute_raw(statement(self.write(number + 1)))
            .await
            .map(drop)
    }

    async fn increment_sqlx(&self, conn: &mut PgConn) -> sqlx::Result<()> {
        let read = sqlx::query_scalar(AssertSqlSafe(self.read()));
        let number: i32 = read.fetch_one(&mut *conn).await?;
        let write = sqlx::query(AssertSqlSafe(self.write(number + 1)));
        write.execute(conn).await.map(drop)
    }

    async fn increment_client(&self, client: &Client) -> Result<(), LockError> {
        let failed = |error| LockError::new(LockErrorKind::Database).with_source(error);
        let row = client.query_typed_one(&self.read(), &[]).await;
        let number: i32 = row.and_then(|row| row.try_get(0)).map_err(failed)?;
        let written = client.batch_execute(&self.write(number + 1)).await;
        written.map_err(failed)
    }

    fn value(&self) -> usize {
        usize::try_from(connect().number(&self.read())).unwrap()
    }
}

fn wait_with(strategy: WaitStrategy) -> LockOptions {
    let options = LockOptions::wait_up_to(Duration::from_secs(20));
    match strategy {
        WaitStrategy::Poll => options.interval(Duration::from_millis(5)),
        strategy => options.strategy(strategy),
    }
}

/// Runs a client in each of several threads, and returns the sum of their increments.
fn contend(client: impl Fn(usize) -> usize + Sync) -> usize {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let client = &client;
                    move || client(number)
                })
            })
            .collect();
        clients.into_iter().map(|done| done.join().unwrap()).sum()
    })
}

/// Asserts that each reported success is true, and that no call fails if the pooler keeps prepared
/// statements.
fn assert_reports(client: &str, pooler: &Pooler, counter: &Counter, done: usize) {
    println!("{client}: {done} of {}", CLIENTS * ROUNDS);
    assert_eq!(counter.value(), done, "{client}");
    if pooler.keeps_statements() {
        assert_eq!(done, CLIENTS * ROUNDS, "{client}");
    }
}

fn blocking_clients(
    counter: &Counter,
    pooler: &Pooler,
    strategy: WaitStrategy,
    open: fn(&str) -> PgConnection,
) -> usize {
    contend(|_| {
        let mut conn = open(&pooler.url());
        (0..ROUNDS)
            .filter(|_| {
                let key = counter.key.clone();
                conn.with_advisory_xact_lock(key, wait_with(strategy), |conn| {
                    counter.increment(conn)
                })
                .is_ok()
            })
            .count()
    })
}

#[test]
fn diesel_without_prepared_statements_loses_nothing() {
    for strategy in [WaitStrategy::Poll, WaitStrategy::Block] {
        let counter = Counter::create();
        let pooler = Pooler::start(Mode::Transaction, SESSIONS, "");
        let done = blocking_clients(&counter, &pooler, strategy, unprepared);
        assert_eq!(done, CLIENTS * ROUNDS, "{strategy:?}");
        assert_eq!(counter.value(), done, "{strategy:?}");
    }
}

/// PgBouncer before 1.21 loses named statements, so some calls fail. Each reported success is true.
#[test]
fn diesel_with_prepared_statements_reports_failures() {
    let counter = Counter::create();
    let pooler = Pooler::start(Mode::Transaction, SESSIONS, "");
    let done = blocking_clients(&counter, &pooler, WaitStrategy::Poll, |url| {
        PgConnection::establish(url).unwrap()
    });
    assert_reports("diesel with named statements", &pooler, &counter, done);
}

/// The same for diesel-async, which prepares named statements when it connects.
#[test]
fn diesel_async_reports_failures() {
    let counter = Counter::create();
    let pooler = Pooler::start(Mode::Transaction, SESSIONS, "");
    let done = contend(|_| {
        let mut done = 0;
        on_runtime(async {
            let Ok(mut conn) = AsyncPgConnection::establish(&pooler.url()).await else {
                println!("diesel-async: not even connected");
                return;
            };
            for _ in 0..ROUNDS {
                let key = counter.key.clone();
                let options = wait_with(WaitStrategy::Poll);
                let body = async |conn: &mut AsyncPgConnection| counter.increment_async(conn).await;
                done += usize::from(
                    conn.with_advisory_xact_lock(key, options, body)
                        .await
                        .is_ok(),
                );
            }
        });
        done
    });
    assert_reports("diesel-async", &pooler, &counter, done);
}

/// A `Client` prepares nothing, so every call succeeds.
#[test]
fn tokio_postgres_loses_nothing() {
    for strategy in [WaitStrategy::Poll, WaitStrategy::Block] {
        let counter = Counter::create();
        let pooler = Pooler::start(Mode::Transaction, SESSIONS, "");
        let done = contend(|_| {
            let mut done = 0;
            on_runtime(async {
                let connected = tokio_postgres::connect(&pooler.url(), NoTls).await;
                let (mut client, connection) = connected.unwrap();
                tokio::spawn(connection);
                for _ in 0..ROUNDS {
                    let key = counter.key.clone();
                    let body = async |client: &mut Client| counter.increment_client(client).await;
                    let call = client.with_advisory_xact_lock(key, wait_with(strategy), body);
                    call.await.unwrap();
                    done += 1;
                }
            });
            done
        });
        assert_eq!(done, CLIENTS * ROUNDS, "{strategy:?}");
        assert_eq!(counter.value(), done, "{strategy:?}");
    }
}

/// The same for SeaORM, whose sqlx uses named statements.
#[test]
fn sea_orm_reports_failures() {
    let counter = Counter::create();
    let pooler = Pooler::start(Mode::Transaction, SESSIONS, "");
    let done = contend(|_| {
        let mut done = 0;
        on_runtime(async {
            let mut options = ConnectOptions::new(pooler.url());
            options.max_connections(1).sqlx_logging(false);
            let Ok(db) = Database::connect(options).await else {
                println!("SeaORM: not even connected");
                return;
            };
            for _ in 0..ROUNDS {
                let key = counter.key.clone();
                let options = wait_with(WaitStrategy::Poll);
                let body =
                    async |conn: &mut PinnedConnection| counter.increment_sea_orm(conn).await;
                done += usize::from(db.with_advisory_xact_lock(key, options, body).await.is_ok());
            }
        });
        done
    });
    assert_reports("SeaORM", &pooler, &counter, done);
}

/// The same for sqlx, with its cache of statements and without.
#[test]
fn sqlx_reports_failures() {
    for capacity in [100, 0] {
        let counter = Counter::create();
        let pooler = Pooler::start(Mode::Transaction, SESSIONS, "");
        let done = contend(|_| {
            let mut done = 0;
            on_runtime(async {
                let options: PgConnectOptions = pooler.url().parse().unwrap();
                let options = options.statement_cache_capacity(capacity);
                let pool = PgPoolOptions::new().max_connections(1);
                let Ok(pool) = pool.connect_with(options).await else {
                    println!("sqlx: not even connected");
                    return;
                };
                for _ in 0..ROUNDS {
                    let key = counter.key.clone();
                    let options = wait_with(WaitStrategy::Poll);
                    let body =
                        async |conn: &mut PooledPgConnection| counter.increment_sqlx(conn).await;
                    let called = pool.with_advisory_xact_lock(key, options, body).await;
                    done += usize::from(called.is_ok());
                }
            });
            done
        });
        let client = format!("sqlx, cache of {capacity}");
        assert_reports(&client, &pooler, &counter, done);
    }
}
