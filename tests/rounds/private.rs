//! A server of this program's own, whose lock table may be filled. At the end of the program, however that comes, its keeper sees the end
//! of its input and deletes it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use diesel::Connection;
use diesel::pg::PgConnection;

struct Keeper {
    url: String,
    _child: Child,
    /// Never written to. The keeper reads it to its end.
    _input: ChildStdin,
}

static KEEPER: Mutex<Option<Keeper>> = Mutex::new(None);

/// One case at a time has the server.
pub(crate) struct Private(MutexGuard<'static, Option<Keeper>>);

impl Private {
    pub(crate) fn take() -> Self {
        // A case that failed has poisoned it; its sessions have ended.
        let mut keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.get_or_insert_with(Keeper::start);
        Self(keeper)
    }

    pub(crate) fn url(&self) -> &str {
        &self.0.as_ref().expect("it was started").url
    }

    pub(crate) fn connect(&self) -> PgConnection {
        PgConnection::establish(self.url()).unwrap()
    }
}

impl Keeper {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
        let mut child = Command::new(script)
            .args(["run", "--", "sh", "-c"])
            .arg("echo \"$DATABASE_URL\"; exec cat >/dev/null")
            .env_remove("DATABASE_URL")
            // Whoever ends this program with its group leaves the keeper time to clean up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/postgres runs");
        let input = child.stdin.take().expect("a pipe");
        let output = child.stdout.take().expect("a pipe");
        let url = BufReader::new(output).lines().next();
        Self {
            url: url.expect("scripts/postgres tells its URL").unwrap(),
            _child: child,
            _input: input,
        }
    }
}
