//! Private servers, for faults that would break the tests that share a server.
//!
//! A test uses a server alone, and most of such tests wait for timeouts. So there are four, for
//! four tests at the same time. Each starts with the first [`ClusterGuard`] that finds no free one.
//! Its supervisor is a child process that runs `scripts/postgres`. When this program ends, for
//! whatever reason, the supervisor reads the end of its input and deletes the server.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Instant;

use diesel::Connection;
use diesel::pg::PgConnection;

use crate::observer::Observe;
use crate::server::{TIMEOUT, connect_to, pause, with_database};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres");

/// Environment variables that the supervisor prints, in this order.
const ENVIRONMENT: [&str; 4] = [
    "DATABASE_URL",
    "ADVISORY_LOCKING_PGDATA",
    "ADVISORY_LOCKING_PGLOG",
    "ADVISORY_LOCKING_PG_BINDIR",
];

#[derive(Debug)]
struct Cluster {
    /// Values of [`ENVIRONMENT`].
    environment: [String; 4],
    standby: Option<String>,
    _supervisor: Child,
    /// Never written to. The supervisor reads it to its end.
    _input: ChildStdin,
}

static CLUSTERS: [Mutex<Option<Cluster>>; 4] = [const { Mutex::new(None) }; 4];

/// Returns a server that no test uses, or waits for the end of a test.
///
/// A failed test poisons the mutex, and may leave the server stopped.
fn free_cluster() -> MutexGuard<'static, Option<Cluster>> {
    static WAITING: AtomicUsize = AtomicUsize::new(0);

    for cluster in &CLUSTERS {
        match cluster.try_lock() {
            Ok(free) => return free,
            Err(TryLockError::Poisoned(free)) => return free.into_inner(),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    let index = WAITING.fetch_add(1, Ordering::Relaxed) % CLUSTERS.len();
    CLUSTERS[index]
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Exclusive use of a running private server.
#[derive(Debug)]
pub struct ClusterGuard(MutexGuard<'static, Option<Cluster>>);

impl ClusterGuard {
    /// Waits for a free server, and starts it if it is not running.
    pub fn acquire() -> Self {
        let mut cluster = free_cluster();
        let running = cluster.get_or_insert_with(Cluster::start);
        if PgConnection::establish(&running.environment[0]).is_err() {
            running.ctl(&["-m", "immediate", "-w", "restart"]);
        }
        Self(cluster)
    }

    fn cluster(&self) -> &Cluster {
        self.0.as_ref().expect("it was started")
    }

    pub fn url(&self) -> String {
        self.cluster().environment[0].clone()
    }

    /// Returns the server's data directory.
    pub fn data_directory(&self) -> PathBuf {
        PathBuf::from(&self.cluster().environment[1])
    }

    /// Returns the file of the server's log. Each line has the name of the session's application.
    pub fn log(&self) -> PathBuf {
        PathBuf::from(&self.cluster().environment[2])
    }

    pub fn connect(&self) -> PgConnection {
        PgConnection::establish(&self.url()).unwrap()
    }

    /// Returns the address of a database that lives as long as the server. The first test that
    /// needs it creates it. A new database is some 300 files.
    pub fn database(
        &self,
        name: &str,
        options: &str,
        set_up: impl FnOnce(&mut PgConnection),
    ) -> String {
        let url = with_database(&self.url(), name);
        let mut admin = self.connect();
        let exists = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
        if admin.number(&exists) == 0 {
            admin.run(&format!("CREATE DATABASE {name} {options}"));
            let mut conn = connect_to(&url);
            // scripts/postgres turns it off, and a later test may crash the server.
            conn.run("SET synchronous_commit = on");
            set_up(&mut conn);
        }
        url
    }

    /// Runs `pg_ctl`.
    pub fn ctl(&self, arguments: &[&str]) {
        self.cluster().ctl(arguments);
    }

    /// Returns the address of a hot standby, which lives as long as the server. It is created again
    /// after it has ended.
    pub fn standby(&mut self) -> String {
        let cluster = self.0.as_mut().expect("it was started");
        let running = cluster.standby.take();
        let standby = running
            .filter(|url| PgConnection::establish(url).is_ok())
            .unwrap_or_else(|| {
                let output = script(&cluster.environment, &["standby"]);
                output.trim().to_owned()
            });
        cluster.standby.insert(standby).clone()
    }
}

impl Cluster {
    fn start() -> Self {
        let print = ENVIRONMENT
            .map(|name| format!("echo \"${name}\"; "))
            .concat();
        let mut supervisor = Command::new(SCRIPT)
            .args(["run", "--", "sh", "-c"])
            .arg(format!("{print} exec cat >/dev/null"))
            .env_remove("DATABASE_URL")
            .env("LOCPATH", LOCALES)
            // A signal to this program's group must not reach the supervisor.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/postgres runs");
        let input = supervisor.stdin.take().expect("a pipe");
        let output = supervisor.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(output).lines();
        let environment = ENVIRONMENT.map(|name| {
            let line = lines.next().and_then(Result::ok);
            line.unwrap_or_else(|| panic!("scripts/postgres did not print {name}"))
        });
        let german = Path::new(&environment[1]).join(GERMAN);
        symlink(c_locale(), german).expect("a file of the data directory can be made");
        Self {
            environment,
            standby: None,
            _supervisor: supervisor,
            _input: input,
        }
    }

    fn ctl(&self, arguments: &[&str]) {
        script(&self.environment, &[&["ctl"], arguments].concat());
        let starts = !arguments.contains(&"stop");
        if starts {
            let began = Instant::now();
            while let Err(refused) = PgConnection::establish(&self.environment[0]) {
                assert!(began.elapsed() < TIMEOUT, "{refused}");
                thread::sleep(pause(began));
            }
        }
    }
}

/// Runs the script with the server's environment, and returns its output.
fn script(environment: &[String; 4], arguments: &[&str]) -> String {
    let output = Command::new(SCRIPT)
        .args(arguments)
        .envs(ENVIRONMENT.into_iter().zip(environment))
        .env("LOCPATH", LOCALES)
        .stdin(Stdio::null())
        .output()
        .expect("scripts/postgres runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "scripts/postgres {arguments:?}: {printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// The locale with the server's German messages: another name of the `C` locale. The server selects
/// the language of its messages by the name alone.
pub const GERMAN: &str = "de_DE.UTF-8";

/// Directory of [`GERMAN`]: the working directory of the server, which is its data directory.
const LOCALES: &str = ".";

/// Returns the directory of the `C` locale.
fn c_locale() -> PathBuf {
    ["C.utf8", "C.UTF-8"]
        .map(|name| Path::new("/usr/lib/locale").join(name))
        .into_iter()
        .find(|path| path.exists())
        .expect("a locale named C.utf8 in /usr/lib/locale, where Debian has it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_database_survive_a_crash() {
        let server = ClusterGuard::acquire();
        let url = server.database("crashed", "", |conn| {
            conn.run("ALTER DATABASE crashed SET intervalstyle = 'sql_standard'");
        });
        server.ctl(&["-m", "immediate", "-w", "restart"]);
        let set = "SELECT count(*) FROM pg_settings \
            WHERE name = 'IntervalStyle' AND setting = 'sql_standard'";
        assert_eq!(connect_to(&url).number(set), 1);
    }
}
