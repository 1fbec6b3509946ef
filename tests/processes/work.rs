//! NemesisAction a client does next, and the statements it needs.

use std::time::Duration;

use advisory_locking::{
    KeyNamespace, LockError, LockErrorKind, LockKey, LockOptions, WaitStrategy,
};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Integer};

use crate::history::{Event, Mode, Moment, Outcome, Recorder, now};
use crate::storage::Storage;

/// Few, so that they are contended for.
pub(crate) const KEYS: usize = 3;
/// By which the nemesis knows its victims. Those of a locker have the number of their process behind it.
pub(crate) const APPLICATION: &str = "al_processes";
pub(crate) const TABLE: &str = "al_processes_counters";
/// Of the lockers' clients, who do not write on the session that has the lock.
pub(crate) const FENCED: &str = "al_processes_fenced";

pub(crate) fn key(number: usize) -> LockKey {
    KeyNamespace::new("processes").key(number)
}

/// Which methods of the library are called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    Guard,
    With,
    Transaction,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) call: u64,
    pub(crate) key: usize,
    pub(crate) mode: Mode,
    pub(crate) how: How,
    pub(crate) strategy: WaitStrategy,
    /// Between reading and writing.
    pub(crate) pause: Duration,
    /// After which an async client drops its future.
    pub(crate) patience: Option<Duration>,
}

impl Plan {
    pub(crate) fn draw(random: &mut fastrand::Rng, call: u64) -> Self {
        Self {
            call,
            key: random.usize(..KEYS),
            mode: if random.u8(..4) == 0 {
                Mode::Shared
            } else {
                Mode::Exclusive
            },
            how: *random
                .choice([How::Guard, How::With, How::Transaction].iter())
                .unwrap(),
            strategy: if random.bool() {
                WaitStrategy::Poll
            } else {
                WaitStrategy::Block
            },
            pause: Duration::from_micros(random.u64(..3_000)),
            patience: (random.u8(..5) == 0).then(|| Duration::from_micros(random.u64(..8_000))),
        }
    }

    pub(crate) fn options(&self) -> LockOptions {
        let options = LockOptions::wait_up_to(Duration::from_secs(2));
        let options = match self.strategy {
            WaitStrategy::Poll => options.interval(Duration::from_millis(5)),
            strategy => options.strategy(strategy),
        };
        match self.mode {
            Mode::Exclusive => options,
            Mode::Shared => options.shared(),
        }
    }

    /// The session and the key's number. The last of a body's statements for a shared holder, too.
    pub(crate) fn reading(&self) -> String {
        format!(
            "SELECT pg_backend_pid() AS pid, number FROM {TABLE} WHERE key = {}",
            self.key
        )
    }

    pub(crate) fn writing(&self, number: u64) -> String {
        format!(
            "UPDATE {TABLE} SET number = {number} WHERE key = {}",
            self.key
        )
    }
}

#[derive(QueryableByName)]
pub(crate) struct Reading {
    #[diesel(sql_type = Integer)]
    pid: i32,
    #[diesel(sql_type = BigInt)]
    number: i64,
}

impl Reading {
    /// NemesisAction a client reads that is not Diesel's.
    pub(crate) const fn new(pid: i32, number: i64) -> Self {
        Self { pid, number }
    }
}

/// NemesisAction a client writes down while it holds a lock. The statements between are its own.
pub(crate) struct Body<'r> {
    plan: Plan,
    recorder: &'r Recorder,
    storage: &'r Storage,
    granted: Moment,
    number: u64,
    filed: u64,
}

impl<'r> Body<'r> {
    /// The first thing to do when the lock is granted.
    pub(crate) fn begin(plan: Plan, recorder: &'r Recorder, storage: &'r Storage) -> Self {
        let granted = now();
        let filed = storage.read(plan.key);
        Self {
            plan,
            recorder,
            storage,
            granted,
            number: 0,
            filed,
        }
    }

    pub(crate) fn read(&mut self, reading: &Reading) {
        self.number = u64::try_from(reading.number).expect("it only grows");
        let (pid, at) = (reading.pid, self.granted);
        let Plan { key, mode, .. } = self.plan;
        self.write(Event::Granted { key, mode, pid, at });
    }

    /// NemesisAction to write, before it is written.
    pub(crate) fn writes(&self) -> u64 {
        let number = self.number + 1;
        self.write(Event::Writes { number });
        number
    }

    /// It is written, and that was acknowledged. In a transaction that means nothing yet: it may be rolled back, and the number be used again.
    pub(crate) fn wrote(&self, number: u64) {
        if self.plan.how != How::Transaction {
            self.write(Event::Wrote { number });
            let filed = self.filed + 1;
            let accepted = self.storage.write(self.plan.key, filed, number);
            self.write(if accepted {
                Event::Filed { number: filed }
            } else {
                Event::Stale
            });
        }
    }

    /// The session of a locker is another than the one that the work is done on.
    pub(crate) fn found(&self, session: &Reading, generation: u64) {
        let (pid, at) = (session.pid, self.granted);
        let Plan { key, mode, .. } = self.plan;
        self.write(Event::Granted { key, mode, pid, at });
        self.write(Event::OfLocker { generation });
    }

    /// The counter that is fenced was read; `None` if it has seen a later token.
    pub(crate) fn read_fenced(&mut self, number: Option<&Reading>) {
        match number {
            Some(reading) => self.number = u64::try_from(reading.number).expect("it only grows"),
            None => self.write(Event::Stale),
        }
    }

    /// The counter that is fenced has answered.
    pub(crate) fn wrote_fenced(&self, number: u64, accepted: bool) {
        self.write(if accepted {
            Event::Wrote { number }
        } else {
            Event::Stale
        });
    }

    /// A shared holder has read again.
    pub(crate) fn read_again(&self, reading: &Reading) {
        if u64::try_from(reading.number) != Ok(self.number) {
            self.write(Event::Differed);
        }
    }

    fn write(&self, event: Event) {
        self.recorder.write(self.plan.call, event);
    }
}

/// The last thing to do before the lock is given back, whatever came between.
impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.write(Event::Until { at: now() });
    }
}

/// NemesisAction a client's body or its lock failed with.
pub(crate) enum Failure {
    Lock(LockError),
    Client,
    /// The guard was dropped, which tells nothing.
    Dropped,
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl From<diesel::result::Error> for Failure {
    fn from(_: diesel::result::Error) -> Self {
        Self::Client
    }
}

impl From<sea_orm::DbErr> for Failure {
    fn from(_: sea_orm::DbErr) -> Self {
        Self::Client
    }
}

pub(crate) fn outcome(result: Result<(), Failure>) -> Outcome {
    match result {
        Ok(()) => Outcome::Ok,
        Err(Failure::Client) => Outcome::Failed,
        Err(Failure::Dropped) => Outcome::Dropped,
        Err(Failure::Lock(error)) if error.is_lost() => Outcome::Lost,
        Err(Failure::Lock(error)) => match error.kind() {
            LockErrorKind::TimedOut | LockErrorKind::HeldElsewhere => Outcome::TimedOut,
            LockErrorKind::CommitFailed | LockErrorKind::TransactionLeftOpen => Outcome::Failed,
            // Of an acquire or of a release: whether there was a body tells.
            _ => Outcome::NotHad,
        },
    }
}
