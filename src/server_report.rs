//! Identity of a server: [`ServerReport`].

use std::fmt;

/// Program behind a connection.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ServerKind {
    /// PostgreSQL, or a service that runs it.
    PostgreSql,
    /// CockroachDB.
    CockroachDb,
    /// YugabyteDB.
    YugabyteDb,
    /// Amazon Redshift.
    Redshift,
    /// Greenplum.
    Greenplum,
    /// openGauss or GaussDB.
    OpenGauss,
    /// PGlite, which has one session only.
    PgLite,
    /// SQLite.
    Sqlite,
    /// A server whose version text is not known. Nothing follows for its locks.
    Unknown,
}

impl fmt::Display for ServerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::PostgreSql => "PostgreSQL",
            Self::CockroachDb => "CockroachDB",
            Self::YugabyteDb => "YugabyteDB",
            Self::Redshift => "Amazon Redshift",
            Self::Greenplum => "Greenplum",
            Self::OpenGauss => "openGauss",
            Self::PgLite => "PGlite",
            Self::Sqlite => "SQLite",
            Self::Unknown => "unknown server",
        })
    }
}

/// Behaviour of the lock functions of a server.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LockSupport {
    /// The server granted a lock and showed it in its lock table.
    Real,
    /// As [`Real`](Self::Real), but other nodes have lock tables of their own: a standby, or an
    /// extension for several primaries.
    NodeLocal,
    /// Every lock is granted to every session.
    Stub,
    /// The server refuses the lock functions.
    Absent,
    /// The check has shown nothing. It is never to be taken for [`Real`](Self::Real).
    Unknown,
}

impl fmt::Display for LockSupport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Real => "real",
            Self::NodeLocal => "local to this node",
            Self::Stub => "granted to every session",
            Self::Absent => "refused",
            Self::Unknown => "unknown",
        })
    }
}

/// Identity of the server behind a connection, and the behaviour of its locks.
///
/// Returned by `identify`, on connections and pools. For the proof that two connections exclude
/// each other, call `detect_pooler`.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "rusqlite")] {
/// use advisory_locking::{AdvisoryLocking, ServerKind, LockSupport};
///
/// let mut conn = rusqlite::Connection::open_in_memory().unwrap();
/// let report = conn.identify().unwrap();
/// assert_eq!((report.kind, report.session_level), (ServerKind::Sqlite, LockSupport::Stub));
/// # }
/// ```
#[non_exhaustive]
#[must_use = "the report states whether the locks exclude other sessions"]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerReport {
    /// The program.
    pub kind: ServerKind,
    /// The text of `version()`. Empty on SQLite.
    pub version: String,
    /// `true` on a hot standby. `false` also if the server refused the check.
    pub is_standby: bool,
    /// Behaviour of session-level locks.
    pub session_level: LockSupport,
    /// Behaviour of transaction-level locks.
    pub transaction_level: LockSupport,
    /// The installed extension that gives each node a lock table of its own (`bdr`, `citus`,
    /// `spock`), if the node's clients use several nodes.
    pub multi_node_extension: Option<String>,
}

impl ServerReport {
    /// Returns the report about SQLite, which grants every lock.
    pub(crate) const fn sqlite() -> Self {
        Self {
            kind: ServerKind::Sqlite,
            version: String::new(),
            is_standby: false,
            session_level: LockSupport::Stub,
            transaction_level: LockSupport::Stub,
            multi_node_extension: None,
        }
    }

    /// Reads the reply of the statement that tries a lock. `None` if it is malformed.
    pub(crate) fn parse(texts: Vec<Option<String>>) -> Option<Self> {
        let texts: [Option<String>; 7] = texts.try_into().ok()?;
        let [
            version,
            crdb_version,
            signs,
            recovery,
            granted,
            shown,
            extension,
        ] = texts;
        let version = version?;
        let kind = kind_of(&version, crdb_version.is_some());
        let is_standby = recovery.as_deref() == Some("true");
        // The numbers of `ServerSigns::STUBS`, which the statement returns as text.
        let is_stub = matches!(signs.as_deref(), Some("2" | "4")) || kind == ServerKind::PgLite;
        let is_shown = (granted.as_deref(), shown.as_deref()) == (Some("true"), Some("1"));
        let transaction_level = match (is_shown, is_stub) {
            // Its issues say that these locks are real since 26.3; it shows none of them.
            (_, true) if cockroach_db_major(crdb_version.as_deref()) >= 26 => LockSupport::Unknown,
            (_, true) => LockSupport::Stub,
            (true, false) if is_standby || extension.is_some() => LockSupport::NodeLocal,
            (true, false) => LockSupport::Real,
            (false, false) => LockSupport::Unknown,
        };
        Some(Self {
            kind,
            version,
            is_standby,
            session_level: if is_stub {
                LockSupport::Stub
            } else {
                transaction_level
            },
            transaction_level,
            multi_node_extension: extension,
        })
    }

    /// Reads the reply of a server that refused the statement that tries a lock.
    pub(crate) fn without_locks(texts: Vec<Option<String>>, support: LockSupport) -> Option<Self> {
        let version = texts.into_iter().next()??;
        Some(Self {
            kind: kind_of(&version, false),
            version,
            is_standby: false,
            session_level: support,
            transaction_level: support,
            multi_node_extension: None,
        })
    }
}

/// Prints one line: the server with its version, the behaviour of its locks, and what is special.
impl fmt::Display for ServerReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most versions begin with the kind.
        let kind = self.kind.to_string();
        match &*self.version {
            "" => formatter.write_str(&kind)?,
            version if version.starts_with(&kind) => formatter.write_str(version)?,
            version => write!(formatter, "{kind} ({version})")?,
        }
        write!(
            formatter,
            ": session-level locks: {}; transaction-level locks: {}",
            self.session_level, self.transaction_level
        )?;
        if self.is_standby {
            formatter.write_str("; standby")?;
        }
        match &self.multi_node_extension {
            Some(name) => write!(formatter, "; extension {name}"),
            None => Ok(()),
        }
    }
}

/// Returns the first number of a version such as `CockroachDB CCL v26.3.0 (…)`; 0 without one.
fn cockroach_db_major(version: Option<&str>) -> u32 {
    let number = version.and_then(|version| version.split(" v").nth(1)?.split('.').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Returns the program of a version text.
fn kind_of(version: &str, is_cockroach_db: bool) -> ServerKind {
    // The forks begin with the version of the PostgreSQL that they come from.
    let marks = [
        ("-YB-", ServerKind::YugabyteDb),
        ("Redshift", ServerKind::Redshift),
        ("Greenplum", ServerKind::Greenplum),
        ("openGauss", ServerKind::OpenGauss),
        ("GaussDB", ServerKind::OpenGauss),
        // PGlite names the compiler of its build only, Emscripten.
        ("emcc", ServerKind::PgLite),
    ];
    if is_cockroach_db || version.starts_with("CockroachDB") {
        return ServerKind::CockroachDb;
    }
    let fork = marks.iter().find(|(mark, _)| version.contains(mark));
    match fork {
        Some((_, kind)) => *kind,
        None if version.starts_with("PostgreSQL ") => ServerKind::PostgreSql,
        None => ServerKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a reply: version, setting, signs, recovery, granted, shown, extension.
    fn read(texts: [&str; 7]) -> ServerReport {
        let texts = texts.map(|text| Some(text.to_owned()).filter(|text| text != "-"));
        ServerReport::parse(texts.into()).unwrap()
    }

    #[test]
    fn version_text_selects_the_kind() {
        for (version, kind) in [
            (
                "PostgreSQL 18.1 on x86_64-pc-linux-gnu",
                ServerKind::PostgreSql,
            ),
            ("CockroachDB CCL v25.4.0", ServerKind::CockroachDb),
            (
                "PostgreSQL 15.12-YB-2025.1.0.0-b0 on x86_64",
                ServerKind::YugabyteDb,
            ),
            (
                "PostgreSQL 8.0.2 on i686, compiled by GCC, Redshift 1.0.77467",
                ServerKind::Redshift,
            ),
            (
                "PostgreSQL 12.12 (Greenplum Database 7.1.0)",
                ServerKind::Greenplum,
            ),
            ("PostgreSQL 9.2.4 (openGauss 5.0.0)", ServerKind::OpenGauss),
            (
                "gaussdb (GaussDB Kernel 505.1.0 build 44f4fa53) on x86_64",
                ServerKind::OpenGauss,
            ),
            (
                "PostgreSQL 17.2 on x86_64-pc-linux-gnu, compiled by emcc",
                ServerKind::PgLite,
            ),
            ("MaterializeDB", ServerKind::Unknown),
        ] {
            assert_eq!(kind_of(version, false), kind, "{version}");
        }
    }

    #[test]
    fn only_a_shown_lock_is_real() {
        let support = |texts| read(texts).transaction_level;
        let postgres = "PostgreSQL 18.1";
        for (texts, expected) in [
            (
                [postgres, "-", "0", "false", "true", "1", "-"],
                LockSupport::Real,
            ),
            (
                [postgres, "-", "0", "false", "true", "0", "-"],
                LockSupport::Unknown,
            ),
            (
                [postgres, "-", "0", "false", "false", "0", "-"],
                LockSupport::Unknown,
            ),
            // Another session holds the lock.
            (
                [postgres, "-", "0", "false", "false", "1", "-"],
                LockSupport::Unknown,
            ),
            (
                [postgres, "-", "8", "true", "true", "1", "-"],
                LockSupport::NodeLocal,
            ),
            (
                [postgres, "-", "0", "false", "true", "1", "citus"],
                LockSupport::NodeLocal,
            ),
            (
                ["CockroachDB", "v25", "2", "false", "true", "0", "-"],
                LockSupport::Stub,
            ),
            (
                ["x-YB-2.20", "-", "4", "false", "true", "0", "-"],
                LockSupport::Stub,
            ),
            (
                ["x-YB-2025", "-", "0", "false", "true", "0", "-"],
                LockSupport::Unknown,
            ),
        ] {
            assert_eq!(support(texts), expected, "{texts:?}");
        }
    }

    /// Its only session is granted every lock, and `pg_locks` shows it.
    #[test]
    fn locks_of_pglite_exclude_no_session() {
        let version = "PostgreSQL 17.2 on x86_64-pc-linux-gnu, compiled by emcc";
        let report = read([version, "-", "0", "false", "true", "1", "-"]);
        let found = (report.session_level, report.transaction_level);
        assert_eq!(found, (LockSupport::Stub, LockSupport::Stub));
    }

    #[test]
    fn cockroach_db_locks_depend_on_its_release() {
        for (version, expected) in [
            ("CockroachDB CCL v25.4.0 (x86_64)", LockSupport::Stub),
            ("CockroachDB CCL v26.3.0 (x86_64)", LockSupport::Unknown),
        ] {
            let report = read([version, version, "2", "false", "true", "0", "-"]);
            assert_eq!(report.transaction_level, expected, "{version}");
            assert_eq!(report.session_level, LockSupport::Stub, "{version}");
        }
    }

    #[test]
    fn display_names_the_server_and_its_locks() {
        let report = read(["PostgreSQL 18.1", "-", "8", "true", "true", "1", "citus"]);
        assert_eq!(
            report.to_string(),
            "PostgreSQL 18.1: session-level locks: local to this node; \
             transaction-level locks: local to this node; standby; extension citus"
        );
        let report = read([
            "PostgreSQL 11.2-YB-2.20",
            "-",
            "4",
            "false",
            "true",
            "0",
            "-",
        ]);
        let yugabyte_db = "YugabyteDB (PostgreSQL 11.2-YB-2.20): ";
        assert!(report.to_string().starts_with(yugabyte_db), "{report}");
        let sqlite = ServerReport::sqlite().to_string();
        assert_eq!(
            sqlite,
            "SQLite: session-level locks: granted to every session; \
             transaction-level locks: granted to every session"
        );
    }

    #[test]
    fn malformed_reply_is_none() {
        assert_eq!(ServerReport::parse(Vec::new()), None);
        assert_eq!(ServerReport::parse(vec![None; 7]), None);
        assert_eq!(
            ServerReport::without_locks(Vec::new(), LockSupport::Absent),
            None
        );
    }
}
