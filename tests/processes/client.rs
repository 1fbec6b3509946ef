//! A child process: some clients of one kind, until its standard input ends.

mod asynchronous;
mod blocking;
mod lock_manager;
mod sea_orm;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::history::Recorder;
use crate::storage::Storage;
use crate::work::APPLICATION;

/// Clients in each process, on a pool of as many connections.
const CLIENTS: u32 = 3;

/// Clients of one locker: so many that the lock is handed on.
const LOCKER_CLIENTS: u32 = 6;

/// NemesisAction the clients of a process share.
#[derive(Clone)]
struct Shared {
    recorder: Arc<Recorder>,
    storage: Storage,
    stop: Arc<AtomicBool>,
    seed: u64,
    process: usize,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn random(&self, client: u32) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_add(u64::from(client)))
    }
}

/// NemesisAction the clients of a process are written with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Diesel,
    DieselAsync,
    SeaOrm,
    BlockingLockManager,
    LockManager,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Diesel,
        Self::DieselAsync,
        Self::SeaOrm,
        Self::BlockingLockManager,
        Self::LockManager,
    ];
}

/// The arguments of a child.
pub(crate) struct Orders {
    pub(crate) kind: Kind,
    /// The number of the process.
    pub(crate) process: usize,
    pub(crate) directory: PathBuf,
    pub(crate) record: PathBuf,
    pub(crate) seed: u64,
}

impl Orders {
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
            kind: Kind::ALL
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
    let orders = Orders::parse(arguments);
    let shared = Shared {
        recorder: Arc::new(Recorder::open(&orders.record)),
        storage: Storage::new(&orders.directory),
        stop: Arc::default(),
        seed: orders.seed,
        process: orders.process,
    };
    let stop = shared.stop.clone();
    // It ends when the parent says so, and when the parent is gone.
    thread::spawn(move || {
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
    match orders.kind {
        Kind::Diesel => blocking::run(&shared),
        Kind::DieselAsync => asynchronous::run(&shared),
        Kind::SeaOrm => sea_orm::run(&shared),
        Kind::BlockingLockManager => lock_manager::blocking::run(&shared),
        Kind::LockManager => lock_manager::asynchronous::run(&shared),
    }
}

fn url() -> String {
    url_as(APPLICATION)
}

fn url_as(application: &str) -> String {
    let url = std::env::var("DATABASE_URL").expect("scripts/postgres sets it");
    format!("{url}?application_name={application}")
}
