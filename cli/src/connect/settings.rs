//! Connection settings: arguments, service file, environment and defaults, in libpq's order.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio_postgres::config::{ChannelBinding, SslNegotiation};

use super::files::{PasswordFor, in_home, read_password, read_service};
use super::hosts::{Host, SOCKET_DIRECTORIES, hosts};
use super::keywords::{Keywords, insert, parse};
use crate::failure::Failure;

/// Environment variables and their keywords, also those that are not supported.
const VARIABLES: [(&str, &str); 31] = [
    ("PGAPPNAME", "application_name"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGDATABASE", "dbname"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version"),
    ("PGOPTIONS", "options"),
    ("PGPASSFILE", "passfile"),
    ("PGPASSWORD", "password"),
    ("PGPORT", "port"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGREQUIRESSL", "requiressl"),
    ("PGSERVICE", "service"),
    ("PGSERVICEFILE", "servicefile"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLSNI", "sslsni"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGUSER", "user"),
];

/// Keywords whose default also replaces an empty value, as in libpq.
const DEFAULT_IF_EMPTY: [&str; 9] = [
    "dbname",
    "host",
    "hostaddr",
    "passfile",
    "password",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "user",
];

/// Default of `connect_timeout`. libpq has none, so that a job in cron could hang for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of `keepalives_idle`, and the least default of `tcp_user_timeout`. libpq's are those of
/// the system, which may notice a dead network after hours.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// The greatest default of `tcp_user_timeout`. The kernel refuses more than 24 days.
const LONGEST_USER_TIMEOUT: Duration = Duration::from_secs(24 * 86_400);

/// [`sslmode`](https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Settings of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    keywords: Keywords,
    pub(crate) hosts: Vec<Host>,
    pub(crate) ssl_mode: SslMode,
    pub(crate) ssl_negotiation: SslNegotiation,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) tcp_user_timeout: Option<Duration>,
    pub(crate) has_keepalives: bool,
    /// `None`, here and below: the default of the system.
    pub(crate) keepalives_idle: Option<Duration>,
    pub(crate) keepalives_interval: Option<Duration>,
    pub(crate) keepalives_count: Option<u32>,
}

impl Settings {
    /// Reads the settings of this process. `url` is the argument of the command line.
    pub(crate) fn of_process(url: Option<&str>) -> Result<Self, Failure> {
        let environment = utf8_variables(env::vars_os(), url.is_some()).map_err(Failure::usage)?;
        Self::read(url, &environment).map_err(Failure::usage)
    }

    fn read(url: Option<&str>, environment: &BTreeMap<String, String>) -> Result<Self, String> {
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let url = url
            .map(str::to_owned)
            .or_else(|| set("DATABASE_URL").cloned())
            .filter(|url| !url.is_empty());
        let mut keywords = url.map_or_else(|| Ok(Keywords::new()), |url| parse(&url))?;
        let mut environment_keywords = Keywords::new();
        for (variable, keyword) in VARIABLES {
            if let Some(value) = set(variable) {
                insert(&mut environment_keywords, keyword, value.clone())
                    .map_err(|text| format!("the environment variable {variable}: {text}"))?;
            }
        }
        let either = |name: &str| {
            keywords
                .get(name)
                .or_else(|| environment_keywords.get(name))
                .cloned()
        };
        if let Some(service) = either("service") {
            let system = set("PGSYSCONFDIR").map_or("/etc/postgresql-common", String::as_str);
            let file = either("servicefile").map(PathBuf::from);
            if let Some(file) = file.as_ref().filter(|file| !file.exists()) {
                return Err(format!(
                    "the service file {} does not exist",
                    file.display()
                ));
            }
            let files: Vec<PathBuf> = file
                .or_else(|| in_home(".pg_service.conf"))
                .into_iter()
                .chain([Path::new(system).join("pg_service.conf")])
                .collect();
            for (name, value) in read_service(&service, &files)? {
                keywords.entry(name).or_insert(value);
            }
        }
        for (name, value) in environment_keywords {
            keywords.entry(name).or_insert(value);
        }
        // As in libpq, an empty value hides the variable.
        keywords.retain(|name, value| !(value.is_empty() && DEFAULT_IF_EMPTY.contains(&&**name)));
        Self::of_keywords(keywords)
    }

    fn of_keywords(keywords: Keywords) -> Result<Self, String> {
        let text = |name: &str| keywords.get(name).map(String::as_str);
        let is_system = text("sslrootcert") == Some("system");
        let ssl_mode = match text("sslmode") {
            None if is_system => SslMode::VerifyFull,
            None | Some("prefer") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(other) => return Err(format!("sslmode {other:?} does not exist")),
        };
        if is_system && ssl_mode != SslMode::VerifyFull {
            return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
        }
        let ssl_negotiation = match text("sslnegotiation") {
            None | Some("postgres") => SslNegotiation::Postgres,
            Some("direct") if ssl_mode >= SslMode::Require => SslNegotiation::Direct,
            Some("direct") => return Err("sslnegotiation=direct needs sslmode=require".to_owned()),
            Some(other) => return Err(format!("sslnegotiation {other:?} does not exist")),
        };
        let channel_binding = match text("channel_binding") {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(other) => return Err(format!("channel_binding {other:?} does not exist")),
        };
        for (name, supported) in [
            ("gssencmode", ["disable", "prefer"]),
            ("sslcertmode", ["disable", "allow"]),
        ] {
            if let Some(value) = text(name).filter(|value| !supported.contains(value)) {
                return Err(format!("{name} {value:?} is not supported"));
            }
        }
        let number = |name: &str| match text(name) {
            Some(text) => text
                .parse::<i32>()
                .map(Some)
                .map_err(|_| format!("{name} {text:?} is not a number")),
            None => Ok(None),
        };
        // As in libpq, a negative number is zero.
        let natural =
            |name: &str| Ok::<_, String>(number(name)?.map(|number| number.max(0).unsigned_abs()));
        // Zero selects the default of the system.
        let seconds = |name: &str, default| match natural(name)? {
            Some(0) => Ok::<_, String>(None),
            Some(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
            None => Ok(Some(default)),
        };
        let has_keepalives = number("keepalives")? != Some(0);
        let keepalives_idle = seconds("keepalives_idle", DEAD_AFTER)?;
        let keepalives_interval = seconds("keepalives_interval", Duration::from_secs(3))?;
        let keepalives_count =
            Some(natural("keepalives_count")?.unwrap_or(3)).filter(|count| *count > 0);
        // Linux ignores the count of an idle connection if this time has passed. So with less, one
        // lost packet would end the session.
        let until_dead = match (keepalives_idle, keepalives_interval, keepalives_count) {
            (Some(idle), Some(interval), Some(count)) => {
                Some(idle.saturating_add(interval.saturating_mul(count)))
            }
            // The times of the system are not known here, so its count decides.
            _ => None,
        };
        let tcp_user_timeout = match natural("tcp_user_timeout")? {
            Some(0) => None,
            Some(millis) => Some(Duration::from_millis(millis.into())),
            None if has_keepalives => until_dead
                .map(|time| time.max(DEAD_AFTER))
                .filter(|time| *time <= LONGEST_USER_TIMEOUT),
            None => Some(DEAD_AFTER),
        };
        Ok(Self {
            hosts: hosts(text("host"), text("hostaddr"), text("port"))?,
            ssl_mode,
            ssl_negotiation,
            channel_binding,
            connect_timeout: seconds("connect_timeout", CONNECT_TIMEOUT)?,
            tcp_user_timeout,
            has_keepalives,
            keepalives_idle,
            keepalives_interval,
            keepalives_count,
            keywords,
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.keywords.get(name).map(String::as_str)
    }

    /// Returns the role, by default the name of the operating system's user. As in libpq, the
    /// variable `USER` does not count, which may be that of the caller of `su` or `sudo`.
    pub(crate) fn user(&self) -> Option<String> {
        let own = || Some(User::from_uid(Uid::effective()).ok()??.name);
        self.get("user").map(str::to_owned).or_else(own)
    }

    /// Returns the password of the settings, or of the password file.
    pub(crate) fn password(&self, host: &Host) -> Option<Vec<u8>> {
        if let Some(password) = self.get("password") {
            return Some(password.into());
        }
        let file = self
            .get("passfile")
            .map(PathBuf::from)
            .or_else(|| in_home(".pgpass"))?;
        let user = self.user()?;
        let is_default_socket = SOCKET_DIRECTORIES.contains(&&*host.name);
        let port = host.port.to_string();
        // A build of libpq has one default directory, and matches the name of the other.
        let other_name = if is_default_socket {
            "localhost"
        } else {
            host.name.as_str()
        };
        let wanted = PasswordFor {
            hosts: [&host.name, other_name],
            port: &port,
            database: self.get("dbname").unwrap_or(&user),
            user: &user,
        };
        read_password(&file, &wanted)
    }
}

/// Returns the variables of a connection. A value that is not UTF-8 is an error, because without it
/// the connection could be one to another server.
fn utf8_variables(
    variables: impl Iterator<Item = (OsString, OsString)>,
    has_url: bool,
) -> Result<BTreeMap<String, String>, String> {
    variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("PG") || (name == "DATABASE_URL" && !has_url))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(format!("the environment variable {name} is not UTF-8")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: Option<&str>, environment: &[(&str, &str)]) -> Result<Settings, String> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::read(url, &environment.collect())
    }

    #[test]
    fn arguments_come_before_the_environment() {
        let environment = [
            ("PGHOST", "env"),
            ("PGPORT", "1"),
            ("PGUSER", "env"),
            ("DATABASE_URL", "postgres://u@d/"),
        ];
        let settings = read(Some("postgres://h/d"), &environment).unwrap();
        assert_eq!(
            settings.hosts,
            [Host {
                name: "h".to_owned(),
                address: None,
                port: 1
            }]
        );
        assert_eq!(
            (settings.get("user"), settings.get("dbname")),
            (Some("env"), Some("d"))
        );
        let settings = read(None, &environment).unwrap();
        assert_eq!(
            (&*settings.hosts[0].name, settings.get("user")),
            ("d", Some("u"))
        );
        let settings = read(Some(""), &environment).unwrap();
        assert_eq!(settings.hosts[0].name, "env");
        // As in libpq, an empty value hides the variable.
        let settings = read(Some("host='' port='' user=''"), &environment).unwrap();
        let host = &settings.hosts[0];
        assert!(SOCKET_DIRECTORIES.contains(&&*host.name), "{host:?}");
        assert_eq!((host.port, settings.get("user")), (5432, None));
    }

    #[test]
    fn service_comes_before_the_environment() {
        let file = env::temp_dir().join(format!("al_service_{}", std::process::id()));
        std::fs::write(&file, "[s]\nhost=from-service\nuser=\npassword=\n").unwrap();
        let file = file.to_str().unwrap().to_owned();
        let environment = [
            ("PGHOST", "env"),
            ("PGDATABASE", "d"),
            ("PGPASSWORD", "env"),
            ("PGUSER", "env"),
            ("PGSERVICEFILE", &*file),
            ("PGSERVICE", "s"),
        ];
        let settings = read(None, &environment).unwrap();
        assert_eq!(
            (&*settings.hosts[0].name, settings.get("dbname")),
            ("from-service", Some("d"))
        );
        assert_eq!(settings.get("password"), None);
        assert_eq!(settings.get("user"), None);
        let unknown = [("PGSERVICEFILE", &*file), ("PGSERVICE", "other")];
        assert!(read(None, &unknown).unwrap_err().contains("other"));
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn contradictory_settings_are_errors() {
        for url in [
            "sslmode=maybe",
            "sslrootcert=system sslmode=require",
            "sslnegotiation=direct",
            "host=a,b port=1,2,3",
            "host=a,b hostaddr=127.0.0.1",
            "port=70000",
            "connect_timeout=soon",
        ] {
            assert!(read(Some(url), &[]).is_err(), "{url}");
        }
        assert!(read(None, &[("PGREQUIREPEER", "postgres")]).is_err());
        for url in ["gssencmode=require", "sslcertmode=require"] {
            assert!(read(Some(url), &[]).is_err(), "{url}");
        }
    }

    #[test]
    fn connect_timeout_that_is_not_positive_is_no_limit() {
        for (url, seconds) in [
            ("", Some(30)),
            ("connect_timeout=7", Some(7)),
            ("connect_timeout=0", None),
            ("connect_timeout=-1", None),
        ] {
            let settings = read(Some(url), &[]).unwrap();
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(settings.connect_timeout, expected, "{url:?}");
        }
    }

    /// Linux ends an idle connection after one unanswered packet if the time is shorter.
    #[test]
    fn user_timeout_leaves_time_for_all_keepalives() {
        for (url, seconds) in [
            ("", Some(19)),
            (
                "keepalives_idle=60 keepalives_interval=10 keepalives_count=6",
                Some(120),
            ),
            ("keepalives_idle=90000", Some(90_009)),
            ("keepalives=0", Some(10)),
            ("tcp_user_timeout=5000", Some(5)),
            // The system's: after 2 hours, every 75 s, 9 times.
            ("keepalives_idle=0", None),
            ("keepalives_interval=0", None),
            ("keepalives_count=0", None),
            ("keepalives_idle=-1", None),
            ("keepalives_count=-1", None),
            ("tcp_user_timeout=-1", None),
        ] {
            let settings = read(Some(url), &[]).unwrap();
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(settings.tcp_user_timeout, expected, "{url:?}");
        }
    }

    #[test]
    fn system_certificates_verify_the_host() {
        let settings = read(Some("host=h sslrootcert=system"), &[]).unwrap();
        assert_eq!(settings.ssl_mode, SslMode::VerifyFull);
        assert_eq!(read(None, &[]).unwrap().ssl_mode, SslMode::Prefer);
    }
}
