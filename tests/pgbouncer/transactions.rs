//! Transaction-level locks under contention, through a pooler that pools transactions: what each client can do there.

use std::thread;
use std::time::Duration;

use advisory_locking::AsyncPooledAdvisoryLocking;
use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::{
    AdvisoryLocking, AsyncAdvisoryLocking, KeyNamespace, LockKey, LockOptions, WaitStrategy,
};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::Integer;
use diesel::{Connection, QueryResult, QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbBackend, DbErr, Statement};

use crate::actor_async::on_runtime;
use crate::clients::unprepared;
use crate::pooler::{Mode, Pooler, server_url};

const CLIENTS: usize = 4;
const ROUNDS: usize = 50;
/// Fewer than clients.
const SESSIONS: u32 = 2;

/// A number in a table, which clients read and write back in two statements. Dropped with its value.
struct Counter {
    table: String,
    key: LockKey,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    number: i32,
}

impl Counter {
    fn create(name: &str) -> Self {
        let table = format!("al_counter_{}_{name}", std::process::id());
        let create = format!("CREATE TABLE {table} AS SELECT 0 AS number");
        server().batch_execute(&create).unwrap();
        let key = KeyNamespace::new("pgbouncer").key(&table);
        Self { table, key }
    }

    fn read(&self) -> String {
        format!("SELECT number FROM {}", self.table)
    }

    fn write(&self, number: i32) -> String {
        format!("UPDATE {} SET number = {number}", self.table)
    }

    /// One more, as somebody does who relies on the lock.
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
        let row = row.ok_or_else(|| DbErr::RecordNotFound(self.table.clone()))?;
        let number: i32 = row.try_get_by_index(0)?;
        conn.execute_raw(statement(self.write(number + 1)))
            .await
            .map(drop)
    }

    fn value(&self) -> usize {
        use diesel::RunQueryDsl;
        let row: Number = sql_query(self.read()).get_result(&mut server()).unwrap();
        usize::try_from(row.number).unwrap()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = server().batch_execute(&format!("DROP TABLE {}", self.table));
    }
}

fn server() -> PgConnection {
    PgConnection::establish(&server_url()).unwrap()
}

fn patient(strategy: WaitStrategy) -> LockOptions {
    let options = LockOptions::wait_up_to(Duration::from_secs(20));
    match strategy {
        WaitStrategy::Poll => options.interval(Duration::from_millis(5)),
        strategy => options.strategy(strategy),
    }
}

/// Runs a client in each of several threads, and adds up what they did.
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

fn blocking_clients(
    counter: &Counter,
    strategy: WaitStrategy,
    connect: fn(&str) -> PgConnection,
) -> usize {
    let pooler = Pooler::start(Mode::Transaction, SESSIONS, "");
    contend(|_| {
        let mut conn = connect(&pooler.url());
        (0..ROUNDS)
            .filter(|_| {
                let key = counter.key.clone();
                conn.with_advisory_xact_lock(key, patient(strategy), |conn| counter.increment(conn))
                    .is_ok()
            })
            .count()
    })
}

#[test]
fn diesel_without_prepared_statements_loses_nothing() {
    for strategy in [WaitStrategy::Poll, WaitStrategy::Block] {
        let counter = Counter::create(&format!("unprepared_{strategy:?}"));
        let done = blocking_clients(&counter, strategy, unprepared);
        assert_eq!(done, CLIENTS * ROUNDS, "{strategy:?}");
        assert_eq!(counter.value(), done, "{strategy:?}");
    }
}

/// PgBouncer before 1.21 loses named statements, so this client fails there now and then. What it reports as done is done.
#[test]
fn diesel_as_it_comes_reports_what_failed() {
    let counter = Counter::create("prepared");
    let done = blocking_clients(&counter, WaitStrategy::Poll, |url| {
        PgConnection::establish(url).unwrap()
    });
    println!(
        "diesel with named statements: {done} of {}",
        CLIENTS * ROUNDS
    );
    assert_eq!(counter.value(), done);
}

/// The same of diesel-async, which names statements already when it connects.
#[test]
fn diesel_async_reports_what_failed() {
    let counter = Counter::create("async");
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
                let options = patient(WaitStrategy::Poll);
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
    println!("diesel-async: {done} of {}", CLIENTS * ROUNDS);
    assert_eq!(counter.value(), done);
}

/// The same of SeaORM, whose sqlx names statements too.
#[test]
fn sea_orm_reports_what_failed() {
    let counter = Counter::create("sea_orm");
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
                let options = patient(WaitStrategy::Poll);
                let body =
                    async |conn: &mut PinnedConnection| counter.increment_sea_orm(conn).await;
                done += usize::from(db.with_advisory_xact_lock(key, options, body).await.is_ok());
            }
        });
        done
    });
    println!("SeaORM: {done} of {}", CLIENTS * ROUNDS);
    assert_eq!(counter.value(), done);
}
