//! A child process: runs clients of one kind until its standard input ends.

mod asynchronous;
mod blocking;
mod lock_manager;
mod sea_orm;
mod sqlx;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::history::Recorder;
use crate::storage::Storage;
use crate::work::APPLICATION;

/// Number of clients in a process, and of connections in their pool.
const CLIENTS: u32 = 3;

/// Number of clients of one lock manager: enough that it hands locks off.
const LOCK_MANAGER_CLIENTS: u32 = 6;

/// State that the clients of a process share.
#[derive(Clone)]
struct Shared {
    recorder: Arc<Recorder>,
    storage: Storage,
    stop: Arc<AtomicBool>,
    seed: u64,
    process: usize,
}

impl Shared {
    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn random(&self, client: u32) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_add(u64::from(client)))
    }
}

/// The client library and pool, or lock manager, of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClientKind {
    Diesel,
    DieselAsync,
    SeaOrm,
    Sqlx,
    LockManagerBlocking,
    LockManagerAsync,
}

impl ClientKind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Diesel,
        Self::DieselAsync,
        Self::SeaOrm,
        Self::Sqlx,
        Self::LockManagerBlocking,
        Self::LockManagerAsync,
    ];
}

/// The arguments of a child.
pub(crate) struct ChildArgs {
    pub(crate) kind: ClientKind,
    /// The number of the process.
    pub(crate) process: usize,
    pub(crate) directory: PathBuf,
    pub(crate) record: PathBuf,
    pub(crate) seed: u64,
}

impl ChildArgs {
    pub(crate) fn to_arguments(&self) -> [String; 5] {
        let path = |path: &Path| path.display().to_string();
        [
            format!("{:?}", self.kind),
            self.process.to_string(),
            path(&self.directory),
            path(&self.record),
            self.seed.to_string(),
        ]
    }

    fn parse(arguments: &[String]) -> Self {
        let [kind, process, directory, record, seed] = arguments else {
            panic!("a child has five arguments: {arguments:?}")
        };
        Self {
            kind: ClientKind::ALL
                .into_iter()
                .find(|known| format!("{known:?}") == *kind)
                .unwrap(),
            process: process.parse().unwrap(),
            directory: directory.into(),
            record: record.into(),
            seed: seed.parse().unwrap(),
        }
    }
}

pub(crate) fn run(arguments: &[String]) {
    let args = ChildArgs::parse(arguments);
    let shared = Shared {
        recorder: Arc::new(Recorder::open(&args.record)),
        storage: Storage::new(&args.directory),
        stop: Arc::default(),
        seed: args.seed,
        process: args.process,
    };
    let stop = shared.stop.clone();
    // The pipe is closed when the parent asks the child to end, and when the parent dies.
    thread::spawn(move || {
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
    match args.kind {
        ClientKind::Diesel => blocking::run(&shared),
        ClientKind::DieselAsync => asynchronous::run(&shared),
        ClientKind::SeaOrm => sea_orm::run(&shared),
        ClientKind::Sqlx => sqlx::run(&shared),
        ClientKind::LockManagerBlocking => lock_manager::blocking::run(&shared),
        ClientKind::LockManagerAsync => lock_manager::asynchronous::run(&shared),
    }
}

fn url() -> String {
    url_as(APPLICATION)
}

fn url_as(application: &str) -> String {
    let url = std::env::var("DATABASE_URL").expect("scripts/postgres sets it");
    format!("{url}?application_name={application}")
}
