//! A PgBouncer of one test, in front of the test server.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testkit::server::url;
use tokio_postgres::config::Host;

/// Limit of the start on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// User and group id of the pooler if the tests run as root, which PgBouncer rejects: Debian's
/// unprivileged user and group.
const UNPRIVILEGED_ID: u32 = 65_534;

/// Pooling mode of PgBouncer: the scope for which a client keeps a server session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Session,
    Transaction,
}

/// Stops the pooler and deletes its directory when it is dropped.
pub(crate) struct Pooler {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Pooler {
    /// Starts a pooler with this many server sessions, and further settings.
    pub(crate) fn start(mode: Mode, sessions: u32, settings: &str) -> Self {
        let directory = directory();
        for _ in 0..20 {
            let port = free_port();
            let pooler = Self {
                child: spawn(&directory, &config(mode, sessions, settings, port)),
                directory: directory.clone(),
                port,
            };
            if let Some(pooler) = pooler.wait_until_listening() {
                return pooler;
            }
        }
        panic!("PgBouncer found no free port in 20 attempts");
    }

    /// Waits until the pooler listens. Returns `None` if it ended because its port is in use.
    ///
    /// Its log tells. A connection to the port may reach the listener of another test, which looks
    /// for a free port at the same time.
    fn wait_until_listening(mut self) -> Option<Self> {
        let began = Instant::now();
        loop {
            let ended = self.child.try_wait().expect("a child can be asked");
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            if let Some(status) = ended {
                assert!(
                    log.contains("already in use"),
                    "PgBouncer ended with {status}: {log}"
                );
                // The next attempt uses the directory.
                self.directory = PathBuf::new();
                return None;
            }
            if log.contains("process up") {
                return Some(self);
            }
            assert!(began.elapsed() < START_LIMIT, "PgBouncer does not listen");
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://any_user@127.0.0.1:{}/pooled", self.port)
    }

    /// Returns true if the pooler keeps the prepared statements of its clients, which is the
    /// default since [1.24](https://www.pgbouncer.org/changelog.html).
    pub(crate) fn keeps_statements(&self) -> bool {
        let log = fs::read_to_string(self.directory.join("log")).expect("a pooler has a log");
        let (_, version) = log
            .split_once("process up: PgBouncer ")
            .expect("the log names the version");
        let mut numbers = version
            .split(|symbol: char| !symbol.is_ascii_digit())
            .map(|number| number.parse::<u32>().expect("a number"));
        (numbers.next(), numbers.next()) >= (Some(1), Some(24))
    }
}

impl Drop for Pooler {
    #[allow(clippy::print_stderr, reason = "shown with a failed test only")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            // It shows the disconnects and their reasons.
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            eprintln!("PgBouncer's log:\n{log}");
        }
        if !self.directory.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("advisory-locking-pgbouncer.{}.{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir(&directory).expect("a temporary directory can be made");
    // The configuration contains the password of DATABASE_URL.
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).expect("it is ours");
    if owner(&directory) == Some(0) {
        chown(&directory, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID)).expect("root may");
    }
    directory
}

fn owner(directory: &Path) -> Option<u32> {
    fs::metadata(directory).ok().map(|made| made.uid())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

fn config(mode: Mode, sessions: u32, settings: &str, port: u16) -> String {
    let server: tokio_postgres::Config = url().parse().expect("DATABASE_URL is one");
    let host = match server.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "127.0.0.1".to_owned(),
    };
    let server_port = server.get_ports().first().copied().unwrap_or(5432);
    let user = server.get_user().expect("DATABASE_URL names a user");
    let database = server.get_dbname().unwrap_or(user);
    let password = server.get_password().map_or_else(String::new, |password| {
        let password = String::from_utf8_lossy(password).replace('\'', "''");
        format!(" password='{password}'")
    });
    let mode = match mode {
        Mode::Session => "session",
        Mode::Transaction => "transaction",
    };
    // sqlx sends the ignored parameter, and could not connect otherwise.
    format!(
        "[databases]\n\
         pooled = host={host} port={server_port} dbname={database} user={user}{password}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nlogfile = log\n\
         auth_type = any\npool_mode = {mode}\ndefault_pool_size = {sessions}\n\
         query_wait_timeout = 20\nignore_startup_parameters = extra_float_digits\n{settings}\n"
    )
}

fn spawn(directory: &Path, config: &str) -> Child {
    let mut command = pooler_command(directory);
    fs::write(directory.join("ini"), config).expect("it can be written");
    // That of an attempt with another port.
    let _ = fs::remove_file(directory.join("log"));
    command
        .arg("ini")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("PgBouncer is missing: run ./scripts/test, or install it (Debian: pgbouncer)")
}

/// Runs PgBouncer, the program in the variable `PGBOUNCER` or the installed one. `setpriv` drops
/// root's privileges, and kills the pooler when the test's thread ends.
fn pooler_command(directory: &Path) -> Command {
    let program = std::env::var("PGBOUNCER").unwrap_or_else(|_| {
        let debian = "/usr/sbin/pgbouncer";
        let found = if Path::new(debian).exists() {
            debian
        } else {
            "pgbouncer"
        };
        found.to_owned()
    });
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if owner(directory) == Some(UNPRIVILEGED_ID) {
        let [user, group] =
            ["--reuid", "--regid"].map(|option| format!("{option}={UNPRIVILEGED_ID}"));
        command.args([&user, &group, "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}
