//! Hand-written baselines of tokio-postgres: unprepared on a `Client`, and from the statement cache
//! of deadpool-postgres.

use deadpool_postgres::{Manager, Pool};
use tokio_postgres::types::{Timestamp, ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use crate::baseline::{LockStatements, REFUSED_SIGNS};

const TRY: &str = "SELECT pg_try_advisory_lock($1)";
const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn deadpool(url: &str) -> Pool {
    let manager = Manager::new(url.parse().unwrap(), NoTls);
    Pool::builder(manager).max_size(1).build().unwrap()
}

type Values<'v> = [(&'v (dyn ToSql + Sync), Type)];

/// Start of a transaction, as the server sent it.
type Began = Timestamp<std::time::SystemTime>;

async fn unprepared(client: &Client, sql: &str, values: &Values<'_>) -> Row {
    client.query_typed_one(sql, values).await.unwrap()
}

async fn cached(client: &deadpool_postgres::Client, sql: &str, values: &Values<'_>) -> Row {
    let (values, types): (Vec<_>, Vec<_>) = values.iter().cloned().unzip();
    let statement = client.prepare_typed_cached(sql, &types).await.unwrap();
    client.query_one(&statement, &values).await.unwrap()
}

/// Runs the two lock functions, then the two statements of the crate, by `$run`.
macro_rules! functions {
    ($run:ident, $client:expr, $key:expr) => {
        for sql in [TRY, UNLOCK] {
            let row = $run($client, sql, &[(&$key, Type::INT8)]).await;
            assert!(row.get::<_, bool>(0));
        }
    };
}
macro_rules! statements {
    ($run:ident, $client:expr, $statements:expr, $key:expr) => {
        let [stub, standby] = REFUSED_SIGNS;
        let values: &Values<'_> = &[
            (&stub, Type::INT4),
            (&standby, Type::INT4),
            (&$key, Type::INT8),
        ];
        let row = $run($client, $statements.try_sql, values).await;
        let (granted, pid, began): (i32, i32, Began) = (row.get(0), row.get(1), row.get(2));
        let values: &Values<'_> = &[
            (&pid, Type::INT4),
            (&$key, Type::INT8),
            (&began, Type::TIMESTAMPTZ),
        ];
        let row = $run($client, $statements.release_sql, values).await;
        assert!(granted == 1 && row.get::<_, bool>(0));
    };
}

pub(crate) async fn functions(client: &Client, key: i64) {
    functions!(unprepared, client, key);
}

pub(crate) async fn statements(client: &Client, statements: LockStatements, key: i64) {
    statements!(unprepared, client, statements, key);
}

pub(crate) async fn cached_functions(pool: &Pool, key: i64) {
    let client = pool.get().await.unwrap();
    functions!(cached, &client, key);
}

pub(crate) async fn cached_statements(pool: &Pool, statements: LockStatements, key: i64) {
    let client = pool.get().await.unwrap();
    statements!(cached, &client, statements, key);
}
