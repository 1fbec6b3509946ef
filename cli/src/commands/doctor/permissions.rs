//! Checks of the role's permissions, and of the connection's name.

use super::{Finding, Grade};
use crate::connect::Connection;
use crate::connect::settings::Settings;
use crate::failure::Failure;

const PERMISSIONS: &str = "SELECT \
    pg_catalog.has_function_privilege('pg_catalog.pg_try_advisory_lock(int8)', 'EXECUTE') \
    AND pg_catalog.has_function_privilege('pg_catalog.pg_advisory_unlock(int8)', 'EXECUTE'), \
    EXISTS (SELECT FROM pg_catalog.pg_language AS language \
            WHERE language.lanname OPERATOR(pg_catalog.=) 'plpgsql' \
            AND pg_catalog.has_language_privilege(language.oid, 'USAGE')), \
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'), \
    pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')";

pub(super) async fn check(connection: &Connection, settings: &Settings) -> Vec<Finding> {
    let mut findings = match permissions(connection).await {
        Ok(findings) => findings,
        Err(failure) => vec![Finding::unknown("permissions", &failure)],
    };
    let name = settings.get("application_name");
    findings.push(match name.filter(|name| !name.is_empty()) {
        Some(name) => Finding::new(Grade::Ok, "application_name", format!("{name:?}")),
        None => Finding::new(
            Grade::Warn,
            "application_name",
            "not set: give each service its own, so that `who` names it",
        ),
    });
    findings
}

async fn permissions(connection: &Connection) -> Result<Vec<Finding>, Failure> {
    let rows = connection.rows(PERMISSIONS).await?;
    let allowed = |column: usize| {
        let value = rows.first().and_then(|row| row.get(column)?.as_deref());
        value == Some("t")
    };
    let grade = |is_allowed: bool, otherwise: Grade| if is_allowed { Grade::Ok } else { otherwise };
    Ok(vec![
        Finding::new(
            grade(allowed(0), Grade::Bad),
            "execute",
            if allowed(0) {
                "the role may call the lock functions"
            } else {
                "the role may not call the lock functions: GRANT EXECUTE ON FUNCTION ..."
            },
        ),
        Finding::new(
            grade(allowed(1), Grade::Warn),
            "plpgsql",
            if allowed(1) {
                "usable"
            } else {
                "not usable: Diesel and diesel-async cannot wait in the server's queue"
            },
        ),
        Finding::new(
            grade(allowed(2), Grade::Warn),
            "details",
            if allowed(2) {
                "the role sees the details of all sessions"
            } else {
                "the role sees state and address of its own sessions only: GRANT pg_read_all_stats"
            },
        ),
        Finding::new(
            grade(allowed(3), Grade::Warn),
            "kill",
            if allowed(3) {
                "the role may end the sessions of other roles"
            } else {
                "the role may end its own sessions only: GRANT pg_signal_backend"
            },
        ),
    ])
}
