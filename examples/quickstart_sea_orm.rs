//! The webhook of `quickstart` with SeaORM: two tasks receive one event at the same time.
//!
//! `DATABASE_URL` selects the database. On PostgreSQL one delivery creates the row, and the other
//! waits, looks, and finds it. On SQLite no delivery waits.
//!
//! ```text
//! scripts/quickstart sea-orm                             SQLite, without a server
//! scripts/postgres run -- scripts/quickstart sea-orm     PostgreSQL
//! ```
//!
//! The script installs missing native libraries, then runs
//! `cargo run --example quickstart_sea_orm --features sea-orm`.
#![expect(unreachable_pub, reason = "SeaORM's macros need it")]
#![expect(clippy::print_stdout, reason = "the program prints each event")]

use std::env;
use std::error::Error;
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions};
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr, Schema, Set};

mod pull_request {
    use sea_orm::entity::prelude::*;

    /// `number` has no unique constraint, so that a second row would be seen.
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
        // Work between the look and the insert: two unprotected deliveries overlap.
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
    // Prints the warning that SQLite has no locks.
    tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .init();

    let schema = format!("advisory_locking_quickstart_{}", process::id());
    let url = env::var("DATABASE_URL").unwrap_or_default();
    let on_postgres = url.starts_with("postgres");
    let file = env::temp_dir().join(&schema).with_extension("sqlite");
    let mut options = if on_postgres {
        ConnectOptions::new(url)
    } else {
        ConnectOptions::new(format!("sqlite://{}?mode=rwc", file.display()))
    };
    options
        .max_connections(2)
        .sqlx_logging(false)
        .set_schema_search_path(schema.clone());
    let db = Database::connect(options).await?;
    if on_postgres {
        db.execute_unprepared(&format!("CREATE SCHEMA {schema}"))
            .await?;
    }

    let outcome = deliver_twice(&db).await;

    if on_postgres {
        db.execute_unprepared(&format!("DROP SCHEMA {schema} CASCADE"))
            .await?;
    }
    db.close().await?;
    if !on_postgres {
        std::fs::remove_file(file)?;
    }
    let once = outcome?;
    Ok(match (on_postgres, once) {
        (true, true) => {
            println!("PostgreSQL: created once; the other delivery waited and found the row");
            ExitCode::SUCCESS
        }
        (true, false) => {
            println!("PostgreSQL: FAILED: not created once and found once");
            ExitCode::FAILURE
        }
        (false, _) => {
            println!("SQLite has no advisory locks: no delivery waited for the other.");
            println!("To see the lock: scripts/postgres run -- scripts/quickstart sea-orm");
            ExitCode::SUCCESS
        }
    })
}

/// Handles the event twice at the same time. Returns true if it was created once and found once.
async fn deliver_twice(db: &DatabaseConnection) -> Result<bool, DbErr> {
    let schema = Schema::new(db.get_database_backend());
    db.execute(&schema.create_table_from_entity(pull_request::Entity))
        .await?;
    let began = Instant::now();
    let deliver = async |delivery: &str| {
        let handled = on_pull_request_opened(db, 1234).await;
        let at = began.elapsed().as_secs_f64() * 1e3;
        match &handled {
            Ok(handled) => println!("{at:>6.1} ms  {delivery}: {handled:?}"),
            Err(error) => println!("{at:>6.1} ms  {delivery} failed: {error}"),
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
