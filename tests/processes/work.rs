//! The calls of a client, their statements, and the events that their bodies record.

use std::time::Duration;

use advisory_locking::{
    KeyNamespace, LockError, LockErrorKind, LockKey, LockOptions, WaitStrategy,
};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Integer};

use crate::history::{Event, Mode, MonotonicNanos, Outcome, Recorder, now};
use crate::storage::Storage;

/// Number of keys: few, so that they are contended.
pub(crate) const KEYS: usize = 3;
/// `application_name` of the sessions that the nemesis may end. A session of a lock manager
/// has `.` and its process number as a suffix.
pub(crate) const APPLICATION: &str = "al_processes";
pub(crate) const TABLE: &str = "al_processes_counters";
/// Counters of the lock managers' clients, which write on another session than the lock's.
pub(crate) const FENCED_TABLE: &str = "al_processes_fenced";

pub(crate) fn key(number: usize) -> LockKey {
    KeyNamespace::new("processes").key(number)
}

/// The method of the crate that a call uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CallKind {
    Guard,
    With,
    Transaction,
}

/// The parameters of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedCall {
    pub(crate) call: u64,
    pub(crate) key: usize,
    pub(crate) mode: Mode,
    pub(crate) kind: CallKind,
    pub(crate) strategy: WaitStrategy,
    /// Time between reading and writing.
    pub(crate) pause: Duration,
    /// Time after which an async client drops the call's future.
    pub(crate) drop_after: Option<Duration>,
}

impl PlannedCall {
    pub(crate) fn random(random: &mut fastrand::Rng, call: u64) -> Self {
        Self {
            call,
            key: random.usize(..KEYS),
            mode: if random.u8(..4) == 0 {
                Mode::Shared
            } else {
                Mode::Exclusive
            },
            kind: *random
                .choice([CallKind::Guard, CallKind::With, CallKind::Transaction].iter())
                .unwrap(),
            strategy: if random.bool() {
                WaitStrategy::Poll
            } else {
                WaitStrategy::Block
            },
            pause: Duration::from_micros(random.u64(..3_000)),
            drop_after: (random.u8(..5) == 0).then(|| Duration::from_micros(random.u64(..8_000))),
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

    /// Selects the session's process id and the counter of the key.
    pub(crate) fn select_sql(&self) -> String {
        format!(
            "SELECT pg_backend_pid() AS pid, number FROM {TABLE} WHERE key = {}",
            self.key
        )
    }

    pub(crate) fn update_sql(&self, number: u64) -> String {
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
    /// Creates a reading from the columns of a client other than Diesel.
    pub(crate) const fn new(pid: i32, number: i64) -> Self {
        Self { pid, number }
    }

    /// Returns true if the query has counted more than one session.
    pub(crate) const fn is_ambiguous(&self) -> bool {
        self.number > 1
    }
}

/// Recorder of the events of one body. The client runs the statements itself.
pub(crate) struct Body<'r> {
    plan: PlannedCall,
    recorder: &'r Recorder,
    storage: &'r Storage,
    granted: MonotonicNanos,
    number: u64,
    filed: u64,
}

impl<'r> Body<'r> {
    /// Starts the body. Must be the first call after the lock is granted.
    pub(crate) fn begin(plan: PlannedCall, recorder: &'r Recorder, storage: &'r Storage) -> Self {
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
        let PlannedCall { key, mode, .. } = self.plan;
        self.write(Event::Granted { key, mode, pid, at });
        if self.plan.kind == CallKind::Transaction {
            self.write(Event::TransactionLevel);
        }
    }

    /// Returns the number to write next, and records it before it is written.
    pub(crate) fn writes(&self) -> u64 {
        let number = self.number + 1;
        self.write(Event::Writes { number });
        number
    }

    /// Records that the database acknowledged the write, and writes the file.
    ///
    /// In a transaction it does neither: the write may be rolled back, and the number reused.
    pub(crate) fn wrote(&self, number: u64) {
        if self.plan.kind != CallKind::Transaction {
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

    /// Records the session on which another connection saw the lock manager's lock.
    pub(crate) fn found(&self, session: &Reading, generation: u64) {
        let (pid, at) = (session.pid, self.granted);
        let PlannedCall { key, mode, .. } = self.plan;
        self.write(Event::Granted { key, mode, pid, at });
        self.write(Event::HeldByLockManager { generation });
    }

    /// Records a read of the fenced counter. `None`: the counter has a later token.
    pub(crate) fn read_fenced(&mut self, number: Option<&Reading>) {
        match number {
            Some(reading) => self.number = u64::try_from(reading.number).expect("it only grows"),
            None => self.write(Event::Stale),
        }
    }

    /// Records the reply to a write of the fenced counter.
    pub(crate) fn wrote_fenced(&self, number: u64, accepted: bool) {
        self.write(if accepted {
            Event::Wrote { number }
        } else {
            Event::Stale
        });
    }

    /// Compares the second read of a shared holder with the first.
    pub(crate) fn read_again(&self, reading: &Reading) {
        if u64::try_from(reading.number) != Ok(self.number) {
            self.write(Event::Differed);
        }
    }

    fn write(&self, event: Event) {
        self.recorder.write(self.plan.call, event);
    }
}

/// Ends the certain interval, just before the lock is released.
impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.write(Event::Until { at: now() });
    }
}

/// The failure of a call: of the lock or of the body.
pub(crate) enum Failure {
    Lock(LockError),
    Client,
    /// The guard was dropped, so the result of the release is unknown.
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

impl From<sqlx::Error> for Failure {
    fn from(_: sqlx::Error) -> Self {
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
            LockErrorKind::CommitFailed
            | LockErrorKind::CommitUnknown
            | LockErrorKind::TransactionLeftOpen => Outcome::Failed,
            // The acquire failed; or the release, if a body was recorded.
            _ => Outcome::NotAcquired,
        },
    }
}
