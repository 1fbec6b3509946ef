//! Databases and roles that a test may spoil. They are dropped with their value.

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;

use super::support::{connect, connect_with, fresh_name, run, url};

/// A database of a test's own: what is in the catalogues, and who may call what, is each database's own.
pub(crate) struct Database(String);

impl Database {
    pub(crate) fn create() -> Self {
        let name = fresh_name();
        run(&mut connect(), &format!("CREATE DATABASE {name}"));
        Self(name)
    }

    pub(crate) fn connect(&self) -> PgConnection {
        connect_with(&format!("dbname={}", self.0))
    }

    /// For clients that do not take the last of two names.
    #[allow(dead_code, reason = "used where other clients than Diesel are")]
    pub(crate) fn url(&self) -> String {
        let url = url();
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (server, _) = rest.split_once('/').expect("a URL with a database");
        format!("{scheme}://{server}/{}", self.0)
    }

    pub(crate) fn connect_as(&self, role: &Role) -> PgConnection {
        connect_with(&format!("dbname={}&{}", self.0, role.login()))
    }

    /// What every session of this database begins with.
    pub(crate) fn set(&self, setting: &str) {
        run(
            &mut self.connect(),
            &format!("ALTER DATABASE {} SET {setting}", self.0),
        );
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = &self.0;
        let mut admin = connect();
        // Where a test has failed, connections may be left; they end when they notice.
        let _ = admin.batch_execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ));
        let _ = admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"));
    }
}

/// A role without any rights but to log in.
pub(crate) struct Role(String);

impl Role {
    pub(crate) fn create() -> Self {
        let name = fresh_name();
        run(
            &mut connect(),
            &format!("CREATE ROLE {name} LOGIN PASSWORD '{name}'"),
        );
        Self(name)
    }

    pub(crate) fn login(&self) -> String {
        format!("user={0}&password={0}", self.0)
    }

    /// What every session of this role begins with.
    pub(crate) fn set(&self, setting: &str) {
        run(
            &mut connect(),
            &format!("ALTER ROLE {} SET {setting}", self.0),
        );
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = connect().batch_execute(&format!("DROP ROLE {}", self.0));
    }
}
