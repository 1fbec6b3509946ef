//! Checks of the server's kind, and of poolers.

use advisory_locking::{AsyncAdvisoryLocking, LockSupport, PoolingMode};
use tokio::time::Instant;

use super::{Finding, Grade};
use crate::connect::Connection;
use crate::connect::settings::Settings;
use crate::duration::Shown;
use crate::failure::Failure;
use crate::session;

/// Parts of host names that belong to transaction poolers.
const POOLER_NAMES: [(&str, &str); 3] = [
    ("-pooler.", "Neon"),
    ("pooler.supabase.com", "Supabase"),
    (".proxy-", "Amazon RDS Proxy"),
];

/// The usual port of PgBouncer.
const PGBOUNCER_PORT: u16 = 6432;

pub(super) async fn check(connection: &mut Connection) -> Vec<Finding> {
    let report = match connection.client.identify().await {
        Ok(report) => report,
        Err(error) => return vec![Finding::unknown("server", &Failure::from(error))],
    };
    let version = report.version.split(" on ").next().unwrap_or_default();
    let mut findings = vec![Finding::new(Grade::Ok, "server", version)];
    findings.push(if report.is_standby {
        let text =
            "a hot standby, whose locks are not those of its primary: connect to the primary";
        Finding::new(Grade::Bad, "primary", text)
    } else {
        Finding::new(Grade::Ok, "primary", "not a standby")
    });
    findings.push(match report.session_level {
        LockSupport::Real => Finding::new(Grade::Ok, "locks", "granted, and shown in pg_locks"),
        LockSupport::NodeLocal => {
            let extension = report
                .multi_node_extension
                .as_deref()
                .unwrap_or("a standby");
            let text = format!("each node has locks of its own ({extension}): use one node only");
            Finding::new(Grade::Warn, "locks", text)
        }
        LockSupport::Stub => Finding::new(
            Grade::Bad,
            "locks",
            "the server grants every lock to every session",
        ),
        LockSupport::Absent => {
            Finding::new(Grade::Bad, "locks", "the server refuses the lock functions")
        }
        _ => Finding::new(
            Grade::Unknown,
            "locks",
            "a granted lock was not shown in pg_locks",
        ),
    });
    findings.push(latency(connection).await);
    findings
}

/// Measures a round trip.
async fn latency(connection: &Connection) -> Finding {
    let began = Instant::now();
    match connection.rows("SELECT 1").await {
        Ok(_) => {
            let text = format!(
                "{:.1} ms for a round trip",
                began.elapsed().as_secs_f64() * 1_000.0
            );
            let is_long = began.elapsed().as_millis() > 100;
            Finding::new(
                if is_long { Grade::Warn } else { Grade::Ok },
                "latency",
                text,
            )
        }
        Err(failure) => Finding::unknown("latency", &failure),
    }
}

pub(super) async fn check_pooler(connection: &mut Connection, settings: &Settings) -> Finding {
    let began = Instant::now();
    let (grade, text) = match session::pooling_mode(connection, settings).await {
        Ok(PoolingMode::Dedicated) => (Grade::Ok, "each connection keeps its session"),
        Ok(PoolingMode::Pinned) => (
            Grade::Warn,
            "a pooler that keeps the sessions of lock holders: poll, do not use --block",
        ),
        Ok(PoolingMode::Multiplexed) => (
            Grade::Bad,
            "a transaction pooler, through which session-level locks do not work: connect to the server itself",
        ),
        Ok(PoolingMode::DifferentServers) => (
            Grade::Bad,
            "two connections do not exclude each other: they reach different servers or databases",
        ),
        Ok(_) => (Grade::Unknown, "no result"),
        Err(failure) => return Finding::unknown("pooler", &failure),
    };
    Finding::new(
        grade,
        "pooler",
        format!("{text} (checked in {})", Shown(began.elapsed())),
    )
}

/// Returns a warning if the address is usually that of a pooler.
pub(super) fn address_hint(settings: &Settings) -> Option<Finding> {
    settings.hosts.iter().find_map(|host| {
        let named = POOLER_NAMES
            .iter()
            .find(|(part, _)| host.name.contains(part));
        let product = match named {
            Some((_, product)) => *product,
            None if host.port == PGBOUNCER_PORT => "PgBouncer, by its port",
            None => return None,
        };
        let text =
            format!("the address looks like a pooler ({product}): locks need session pooling");
        Some(Finding::new(Grade::Warn, "address", text))
    })
}
