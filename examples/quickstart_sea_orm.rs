//! The webhook of `quickstart`, on SeaORM: one event, delivered twice at the same moment, to two tasks.
//!
//! Which database it is, the program learns when it runs. On PostgreSQL one delivery creates the row, and the other waits, looks and
//! finds it. On SQLite nobody waits for anybody.
//!
//! ```text
//! scripts/quickstart sea-orm                             SQLite, without a server
//! scripts/postgres run -- scripts/quickstart sea-orm     PostgreSQL
//! ```
//!
//! The scripts set up what it needs, and then
//!
//! ```text
//! cargo run --example quickstart_sea_orm --features sea-orm
//! ```
#![expect(unreachable_pub, reason = "SeaORM's macros want it")]
#![expect(clippy::print_stdout, reason = "the program shows what happens")]

use std::env;
use std::error::Error;
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions};
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr, Schema, Set};

mod pull_request {
    use sea_orm::entity::prelude::*;

    /// No unique constraint but the row's own number, so that a second row would be seen.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "pull_request")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub row: i32,
        pub number: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[derive(Debug, Eq, PartialEq)]
enum Handled {
    Created,
    Found,
}

/// Handles the event. This is the part that belongs in an application.
async fn on_pull_request_opened(db: &DatabaseConnection, number: i64) -> Result<Handled, DbErr> {
    let wait = LockOptions::wait_up_to(Duration::from_secs(10));
    db.with_advisory_xact_lock(("pull-request", number), wait, async |db| {
        let there = pull_request::Entity::find()
            .filter(pull_request::Column::Number.eq(number))
            .one(db)
            .await?;
        if there.is_some() {
            return Ok(Handled::Found);
        }
        // As if something else were to be asked first: long enough for two unprotected deliveries to meet.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let row = pull_request::ActiveModel {
            number: Set(number),
            ..Default::default()
        };
        row.insert(db).await?;
        Ok(Handled::Created)
    })
    .await
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    // The warning that SQLite has no locks goes to standard output with the rest.
    tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .init();

    let place = format!("advisory_locking_quickstart_{}", process::id());
    let url = env::var("DATABASE_URL").unwrap_or_default();
    let on_postgres = url.starts_with("postgres");
    let file = env::temp_dir().join(&place).with_extension("sqlite");
    let mut options = if on_postgres {
        ConnectOptions::new(url)
    } else {
        ConnectOptions::new(format!("sqlite://{}?mode=rwc", file.display()))
    };
    options
        .max_connections(2)
        .sqlx_logging(false)
        .set_schema_search_path(place.clone());
    let db = Database::connect(options).await?;
    if on_postgres {
        db.execute_unprepared(&format!("CREATE SCHEMA {place}"))
            .await?;
    }

    let outcome = deliver_twice(&db).await;

    if on_postgres {
        db.execute_unprepared(&format!("DROP SCHEMA {place} CASCADE"))
            .await?;
    }
    db.close().await?;
    if !on_postgres {
        std::fs::remove_file(file)?;
    }
    let once = outcome?;
    Ok(match (on_postgres, once) {
        (true, true) => {
            println!("PostgreSQL: written once; the other delivery waited, looked and found it");
            ExitCode::SUCCESS
        }
        (true, false) => {
            println!("PostgreSQL: the lock did not do its work");
            ExitCode::FAILURE
        }
        (false, _) => {
            println!("SQLite has no advisory locks: nobody waited for anybody.");
            println!("For the lock itself: scripts/postgres run -- scripts/quickstart sea-orm");
            ExitCode::SUCCESS
        }
    })
}

/// Two tasks that handle the event at the same moment. Whether it was created once and found once.
async fn deliver_twice(db: &DatabaseConnection) -> Result<bool, DbErr> {
    let schema = Schema::new(db.get_database_backend());
    db.execute(&schema.create_table_from_entity(pull_request::Entity))
        .await?;
    let began = Instant::now();
    let deliver = async |who: &str| {
        let handled = on_pull_request_opened(db, 1234).await;
        let at = began.elapsed().as_secs_f64() * 1e3;
        match &handled {
            Ok(handled) => println!("{at:>6.1} ms  {who}: {handled:?}"),
            Err(error) => println!("{at:>6.1} ms  {who} failed: {error}"),
        }
        handled.ok()
    };
    let both = tokio::join!(deliver("delivery 1"), deliver("delivery 2"));
    let rows = pull_request::Entity::find().count(db).await?;
    println!("rows: {rows}");
    let (created, found) = (Some(Handled::Created), Some(Handled::Found));
    Ok(rows == 1
        && (both == (created, found) || both == (Some(Handled::Found), Some(Handled::Created))))
}
