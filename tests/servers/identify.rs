//! `identify`, on PostgreSQL and on servers that resemble it.

use advisory_locking::{
    AdvisoryLocking, AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind,
    LockSupport, PooledAdvisoryLocking, ServerKind, ServerReport,
};
use diesel::Connection;
use diesel::pg::PgConnection;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use testkit::fake_server::{FakeServer, Rule};
use testkit::server::{connect, kind_of, url};

use crate::client::{Client, bb8_pool, block_on, r2d2_pool, sea_orm, sqlx_pool};

fn identify(client: Client, url: &str) -> Result<ServerReport, LockError> {
    match client {
        Client::Diesel => PgConnection::establish(url).unwrap().identify(),
        Client::R2d2 => r2d2_pool(url, 1).identify(),
        Client::DieselAsync => block_on(async {
            let mut conn = AsyncPgConnection::establish(url).await.unwrap();
            conn.identify().await
        }),
        Client::Bb8 => block_on(async { bb8_pool(url, 1).await.identify().await }),
        Client::SeaOrm => block_on(async { sea_orm(url, 1).await.identify().await }),
        Client::Sqlx => block_on(async { sqlx_pool(url, 1).await.identify().await }),
    }
}

#[test]
fn postgres_has_real_locks() {
    for client in Client::ALL {
        let report = identify(client, &url()).unwrap();
        assert_eq!(report.kind, ServerKind::PostgreSql, "{client:?} {report}");
        assert_eq!(report.session_level, LockSupport::Real, "{client:?}");
        assert_eq!(report.transaction_level, LockSupport::Real, "{client:?}");
        assert!(!report.is_standby && report.version.starts_with("PostgreSQL "));
    }
}

#[test]
fn each_fake_server_is_identified() {
    for (rules, kind, support) in [
        (
            Rule::cockroach_db(),
            ServerKind::CockroachDb,
            LockSupport::Stub,
        ),
        (
            Rule::yugabyte_db(),
            ServerKind::YugabyteDb,
            LockSupport::Stub,
        ),
        (
            vec![Rule::standby()],
            ServerKind::PostgreSql,
            LockSupport::NodeLocal,
        ),
        // It grants every lock and shows no sign: nothing is known.
        (
            Rule::grant_everything(),
            ServerKind::PostgreSql,
            LockSupport::Unknown,
        ),
    ] {
        let server = FakeServer::start(rules);
        for client in Client::ALL {
            let report = identify(client, &server.url()).unwrap();
            assert_eq!(report.kind, kind, "{client:?}");
            let found = (report.session_level, report.transaction_level);
            assert_eq!(found, (support, support), "{client:?} {report}");
            assert_eq!(report.is_standby, support == LockSupport::NodeLocal);
        }
    }
}

/// Each node has a lock table of its own. Any other extension shares that of its server.
#[test]
fn extension_of_several_nodes_is_found() {
    for (installed, found) in [
        ("bdr", Some("bdr")),
        ("citus", Some("citus")),
        ("spock", Some("spock")),
        ("adminpack", None),
    ] {
        // The first name of the alphabet must not hide the others.
        let extensions = format!("(VALUES ('adminpack'), ('{installed}')) AS extension (extname)");
        let server = FakeServer::start([Rule::replace(
            "pg_catalog.pg_extension AS extension",
            &extensions,
        )]);
        let report = identify(Client::Diesel, &server.url()).unwrap();
        assert_eq!(report.multi_node_extension.as_deref(), found);
        let support = found.map_or(LockSupport::Real, |_| LockSupport::NodeLocal);
        let levels = (report.session_level, report.transaction_level);
        assert_eq!(levels, (support, support), "{installed}: {report}");
    }
}

#[test]
fn missing_lock_functions_are_not_real() {
    let server = FakeServer::start(Rule::no_lock_functions());
    for client in Client::ALL {
        let support = match client {
            Client::SeaOrm | Client::Sqlx => LockSupport::Absent,
            // Diesel hides the SQLSTATE.
            _ => LockSupport::Unknown,
        };
        let report = identify(client, &server.url()).unwrap();
        assert_eq!(report.kind, ServerKind::PostgreSql, "{client:?}");
        assert_eq!(report.session_level, support, "{client:?}");
    }
}

#[test]
fn identify_refuses_a_transaction() {
    let mut conn = connect();
    conn.begin_test_transaction().unwrap();
    assert_eq!(kind_of(conn.identify()), Some(LockErrorKind::InTransaction));
}
