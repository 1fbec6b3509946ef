//! Databases, roles and tables of one test. They are dropped with their value.

use advisory_locking::session::TokenSource;
use diesel::pg::PgConnection;

use crate::observer::Observe;
use crate::server::{
    connect, connect_to, connect_with, fresh_name, url, with_database, with_parameters,
};

/// An object of the test server that is dropped with its value.
#[derive(Debug)]
pub struct TempObject {
    pub name: String,
    kind: &'static str,
}

impl TempObject {
    /// Creates an object, for example of the kind `TABLE` with the definition `(number int)`.
    pub fn create(kind: &'static str, definition: &str) -> Self {
        let name = fresh_name();
        connect().run(&format!("CREATE {kind} {name} {definition}"));
        Self { name, kind }
    }

    /// Returns this sequence as the source of fencing tokens.
    pub fn source(&self) -> TokenSource {
        TokenSource::Sequence(self.name.as_str().into())
    }
}

impl Drop for TempObject {
    fn drop(&mut self) {
        let Self { name, kind } = self;
        // A failed test may leave connections.
        let force = if *kind == "DATABASE" {
            "WITH (FORCE)"
        } else {
            ""
        };
        let _ = connect().try_run(&format!("DROP {kind} {name} {force}"));
    }
}

/// A database, with its own catalogues and privileges.
#[derive(Debug)]
pub struct TempDatabase(TempObject);

impl TempDatabase {
    pub fn create() -> Self {
        Self::create_with("")
    }

    /// Creates a database with options, for example `ENCODING 'LATIN1' TEMPLATE template0`.
    pub fn create_with(options: &str) -> Self {
        Self(TempObject::create("DATABASE", options))
    }

    /// Returns the address for libpq, which takes the last of two database names.
    pub fn parameter_url(&self) -> String {
        with_parameters(&url(), &format!("dbname={}", self.0.name))
    }

    /// Returns the address for clients that do not accept a second database name.
    pub fn url(&self) -> String {
        with_database(&url(), &self.0.name)
    }

    pub fn connect(&self) -> PgConnection {
        connect_to(&self.parameter_url())
    }

    pub fn connect_as(&self, role: &TempRole) -> PgConnection {
        connect_with(&format!("dbname={}&{}", self.0.name, role.login()))
    }

    /// Sets a default of the sessions of this database.
    pub fn set(&self, setting: &str) {
        self.connect()
            .run(&format!("ALTER DATABASE {} SET {setting}", self.0.name));
    }
}

/// A role that may log in, without further privileges.
#[derive(Debug)]
pub struct TempRole(TempObject);

impl TempRole {
    pub fn create() -> Self {
        Self::create_with("")
    }

    /// Creates a role with further options, for example `CONNECTION LIMIT 1`.
    pub fn create_with(options: &str) -> Self {
        Self(TempObject::create(
            "ROLE",
            &format!("LOGIN PASSWORD 'none' {options}"),
        ))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the parameters of a connection as this role.
    pub fn login(&self) -> String {
        format!("user={}&password=none", self.0.name)
    }

    /// Returns a server's address for clients that do not accept a user as a parameter.
    pub fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (authority, path) = rest.split_once('/').expect("a URL with a database");
        let host = authority.rsplit('@').next().unwrap_or(authority);
        format!("{scheme}://{}:none@{host}/{path}", self.0.name)
    }

    /// Sets a default of the sessions of this role.
    pub fn set(&self, setting: &str) {
        connect().run(&format!("ALTER ROLE {} SET {setting}", self.0.name));
    }
}
