//! A server of this program's own, for what would break everybody else's. Started when the first case asks for it; at the end of the
//! program, however that comes, its keeper sees the end of its input and deletes it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::pg::PgConnection;

/// Far longer than a server takes to start.
const LIMIT: Duration = Duration::from_secs(60);

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");

/// What the keeper tells, in this order.
const TOLD: [&str; 4] = [
    "DATABASE_URL",
    "ADVISORY_LOCKING_PGDATA",
    "ADVISORY_LOCKING_PGLOG",
    "ADVISORY_LOCKING_PG_BINDIR",
];

pub(crate) struct Cluster {
    told: [String; 4],
    standby: Option<String>,
    keeper: Child,
    /// Never written to. The keeper reads it to its end.
    _input: ChildStdin,
}

static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);

/// One case at a time has the server, in working order.
pub(crate) struct Private(MutexGuard<'static, Option<Cluster>>);

impl Private {
    pub(crate) fn take() -> Self {
        // A case that failed has poisoned it, and may have left the server stopped.
        let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        let running = cluster.get_or_insert_with(Cluster::start);
        if PgConnection::establish(&running.told[0]).is_err() {
            running.ctl(&["-m", "immediate", "-w", "restart"]);
        }
        Self(cluster)
    }

    fn cluster(&self) -> &Cluster {
        self.0.as_ref().expect("it was started")
    }

    pub(crate) fn url(&self) -> String {
        self.cluster().told[0].clone()
    }

    pub(crate) fn connect(&self) -> PgConnection {
        PgConnection::establish(&self.url()).unwrap()
    }

    /// `pg_ctl` on the server.
    pub(crate) fn ctl(&self, arguments: &[&str]) {
        self.cluster().ctl(arguments);
    }

    /// The address of a hot standby of the server, which lives as long as it does.
    pub(crate) fn standby(&mut self) -> String {
        let cluster = self.0.as_mut().expect("it was started");
        let made = cluster.standby.get_or_insert_with(|| {
            let output = script(&cluster.told, &["standby"]);
            output.trim().to_owned()
        });
        made.clone()
    }
}

impl Cluster {
    fn start() -> Self {
        let tell = TOLD.map(|name| format!("echo \"${name}\"; ")).concat();
        let mut keeper = Command::new(SCRIPT)
            .args(["run", "--", "sh", "-c"])
            .arg(format!("{tell} exec cat >/dev/null"))
            .env_remove("DATABASE_URL")
            .env("LOCPATH", locales())
            // Whoever ends this program with its group leaves the keeper time to clean up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/postgres runs");
        let input = keeper.stdin.take().expect("a pipe");
        let output = keeper.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(output).lines();
        let told = TOLD.map(|name| {
            let line = lines.next().and_then(Result::ok);
            line.unwrap_or_else(|| panic!("scripts/postgres did not tell {name}"))
        });
        Self {
            told,
            standby: None,
            keeper,
            _input: input,
        }
    }

    fn ctl(&self, arguments: &[&str]) {
        script(&self.told, &[&["ctl"], arguments].concat());
        let starts = !arguments.contains(&"stop");
        if starts {
            let began = Instant::now();
            while let Err(refused) = PgConnection::establish(&self.told[0]) {
                assert!(began.elapsed() < LIMIT, "{refused}");
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Runs the script inside the cluster's `run`, and returns what it said.
fn script(told: &[String; 4], arguments: &[&str]) -> String {
    let output = Command::new(SCRIPT)
        .args(arguments)
        .envs(TOLD.into_iter().zip(told))
        .env("LOCPATH", locales())
        .stdin(Stdio::null())
        .output()
        .expect("scripts/postgres runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "scripts/postgres {arguments:?}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// The locale in which the server finds its German messages.
pub(crate) const GERMAN: &str = "de_DE.UTF-8";

/// A directory with another name for the locale that every system has. The server looks for the language by the name alone.
fn locales() -> PathBuf {
    let theirs = ["C.utf8", "C.UTF-8"].map(|name| Path::new("/usr/lib/locale").join(name));
    let theirs = theirs.iter().find(|path| path.exists());
    let theirs = theirs.expect("a locale named C.utf8 in /usr/lib/locale, where Debian has it");
    // Where the server's user may read it.
    let directory = std::env::temp_dir().join("advisory-locking-locales");
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let link = directory.join(GERMAN);
    if std::fs::symlink_metadata(&link).is_err() {
        // Another run may just have made it.
        let _ = std::os::unix::fs::symlink(theirs, &link);
    }
    directory
}
