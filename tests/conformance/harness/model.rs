//! The in-process model: the suite also runs without features and without a database.

use std::any::Any;

use advisory_locking::{LockKey, LockScope};

use crate::actor::{ActorChannel, Outcome, SqlCommand};
use crate::actor_blocking::{self, Client};
use crate::fixture::{Harness, LockEntry, LockTable};
use testkit::model::{Code, Lock, Model, ModelSession, Requested};

/// The model, with a client that shows the server's SQLSTATE or hides it as Diesel does.
pub(crate) struct ModelHarness {
    pub(crate) model: Model,
    pub(crate) hides_codes: bool,
}

pub(crate) fn showing_codes() -> ModelHarness {
    ModelHarness {
        model: Model::default(),
        hides_codes: false,
    }
}

pub(crate) fn hiding_codes() -> ModelHarness {
    ModelHarness {
        hides_codes: true,
        ..showing_codes()
    }
}

impl Harness for ModelHarness {
    fn actor(&self) -> Box<dyn FnOnce(&ActorChannel) + Send> {
        let mut session = self.model.connect();
        session.hides_codes = self.hides_codes;
        Box::new(move |channel| actor_blocking::connection(&mut session, channel))
    }

    fn lock_table(&self) -> Option<&dyn LockTable> {
        Some(self)
    }
}

impl LockTable for ModelHarness {
    fn lock_entries(&self, key: &LockKey) -> Vec<LockEntry> {
        let rows = self.model.held(key).into_iter();
        rows.map(|row| LockEntry {
            pid: row.pid,
            mode: row.mode,
            granted: row.granted,
        })
        .collect()
    }

    fn terminate(&self, pid: i32) {
        self.model.run(|server| server.terminate(pid));
    }

    fn cancel(&self, pid: i32) {
        self.model.run(|server| server.cancel(pid));
    }

    fn reserve_extreme_keys(&self) -> Box<dyn Any> {
        // No other case uses this model.
        Box::new(())
    }

    // The model has no snapshots, and does not record the statements. A poller is in a transaction
    // during its attempts only.
    fn has_rolled_back(&self, pid: i32) -> bool {
        self.model.run(|server| !server.is_in_transaction(pid))
    }

    fn has_ended_snapshot(&self, pid: i32) -> bool {
        self.model.run(|server| server.is_in_transaction(pid))
    }
}

impl Client for ModelSession {
    fn run_sql(&mut self, command: SqlCommand) -> Outcome {
        match answer(self, command) {
            Ok(Some(number)) => Outcome::Answered(Some(number)),
            Ok(None) => Outcome::Done,
            Err(_) => Outcome::ClientFailed,
        }
    }

    fn begin_test(&mut self) -> Outcome {
        self.begin_test()
            .map_or(Outcome::ClientFailed, |()| Outcome::Done)
    }
}

fn answer(session: &ModelSession, command: SqlCommand) -> Result<Option<i64>, Code> {
    let pid = session.pid();
    session.model().run(|server| match command {
        SqlCommand::Pid => Ok(Some(pid.into())),
        SqlCommand::TryLock(key, mode) => server
            .request(pid, Lock { key, mode }, LockScope::Session, false)
            .map(|requested| Some((requested == Requested::Granted).into())),
        SqlCommand::Unlock(key, mode) => server
            .unlock(pid, Lock { key, mode })
            .map(|unlocked| Some(unlocked.into())),
        SqlCommand::UnlockAll => server.unlock_all(pid).map(|()| None),
        SqlCommand::DiscardAll => server.discard_all(pid).map(|()| None),
        SqlCommand::DeallocateAll => server.deallocate_all(pid).map(|()| None),
        SqlCommand::Begin => server.begin(pid).map(|()| None),
        SqlCommand::Commit => server.commit(pid).map(|_| None),
        SqlCommand::Rollback => server.rollback(pid).map(|()| None),
        SqlCommand::Savepoint(name) => server.savepoint(pid, name).map(|()| None),
        SqlCommand::RollbackTo(name) => server.rollback_to(pid, name).map(|()| None),
        SqlCommand::Fail => Err(server.fail(pid, "22012")),
        SqlCommand::Run(sql) => panic!("the model does not parse SQL: {sql}"),
        SqlCommand::Write => server.write(pid).map(|()| None),
        SqlCommand::Count => server.written(pid).map(Some),
        // The model interprets the library's statements by kind, and has no settings.
        SqlCommand::SetSettings => Ok(None),
        SqlCommand::Settings => Ok(Some(0)),
    })
}
