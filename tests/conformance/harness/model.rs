//! The in-process model, so that the suite runs with no features and no database.

use advisory_locking::LockKey;

use crate::actor::{Mail, Outcome, Raw};
use crate::pg_model::{Code, Level, Lock, Model, ModelSession, Requested};
use crate::serve::{self, Client};
use crate::stage::{Harness, Held};

/// A client that shows the server's codes, or one that hides them as Diesel does.
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
    fn actor(&self) -> Box<dyn FnOnce(&Mail) + Send> {
        let mut session = self.model.connect();
        session.hides_codes = self.hides_codes;
        Box::new(move |mail| serve::connection(&mut session, mail))
    }

    fn holders(&self, key: &LockKey) -> Vec<Held> {
        let rows = self.model.held(key).into_iter();
        rows.map(|row| Held {
            pid: row.pid,
            mode: row.mode,
            granted: row.granted,
        })
        .collect()
    }

    fn excludes(&self) -> bool {
        true
    }

    fn terminate(&self, pid: i32) {
        self.model.run(|server| server.terminate(pid));
    }

    fn cancel(&self, pid: i32) {
        self.model.run(|server| server.cancel(pid));
    }
}

impl Client for ModelSession {
    fn raw(&mut self, raw: Raw) -> Outcome {
        match answer(self, raw) {
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

fn answer(session: &ModelSession, raw: Raw) -> Result<Option<i64>, Code> {
    let pid = session.pid();
    session.model().run(|server| match raw {
        Raw::Pid => Ok(Some(pid.into())),
        Raw::TryLock(key, mode) => server
            .request(pid, Lock { key, mode }, Level::Session, false)
            .map(|requested| Some((requested == Requested::Granted).into())),
        Raw::Unlock(key, mode) => server
            .unlock(pid, Lock { key, mode })
            .map(|unlocked| Some(unlocked.into())),
        Raw::UnlockAll => server.unlock_all(pid).map(|()| None),
        Raw::Begin => server.begin(pid).map(|()| None),
        Raw::Commit => server.commit(pid).map(|_| None),
        Raw::Rollback => server.rollback(pid).map(|()| None),
        Raw::Savepoint(name) => server.savepoint(pid, name).map(|()| None),
        Raw::RollbackTo(name) => server.rollback_to(pid, name).map(|()| None),
        Raw::Fail => Err(server.fail(pid, "22012")),
        Raw::Run(sql) => panic!("the model knows no SQL: {sql}"),
        Raw::Write => server.write(pid).map(|()| None),
        Raw::Count => server.written(pid).map(Some),
        // Statements of the library are known to the model by what they mean, and none of them changes a setting.
        Raw::SetSettings => Ok(None),
        Raw::Settings => Ok(Some(0)),
    })
}
