//! Statements that a call sends beside those of its lock.

use std::time::Duration;

use crate::connection::AdvisoryLocking;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::session::{
    Backend, Cell, LockReply, LockSession, Row, Script, ServerSigns, SessionError, Statement,
    TransactionState,
};

const ONE_TRY: LockOptions = LockOptions::wait_up_to(Duration::ZERO);

/// Process id of the session that holds every lock.
const HOLDER: i32 = 4711;

/// Session of a server on which another session holds every lock.
struct Contended {
    backend: Backend,
    transaction: TransactionState,
    statements: u32,
    /// Reply to a report.
    report: Cell,
}

impl Contended {
    fn new(backend: Backend, transaction: TransactionState) -> Self {
        let lock = ["0", "1", "1", "ExclusiveLock", "true"].map(|text| Some(text.to_owned()));
        let mut texts = lock.to_vec();
        texts.extend([None, None, Some(HOLDER.to_string())]);
        texts.resize(crate::lock_report::COLUMNS, None);
        Self {
            backend,
            transaction,
            statements: 0,
            report: Cell::Texts(texts),
        }
    }

    fn reply(&mut self, statement: &Statement) -> Row {
        self.statements += 1;
        if matches!(statement, Statement::Report { .. }) {
            return Row::new([self.report.clone(), Cell::Null, Cell::Null, Cell::Null]);
        }
        Row::from(LockReply {
            answer: Some(false),
            pid: 1,
            transaction_began: 1,
            server_signs: ServerSigns::NONE,
        })
    }
}

impl LockSession for Contended {
    fn session_backend(&mut self) -> Backend {
        self.backend
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.transaction
    }

    fn session_mark_broken(&mut self) {}

    fn session_begin(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        Ok(self.reply(statement))
    }
}

fn idle() -> Contended {
    Contended::new(Backend::Postgres, TransactionState::none())
}

#[track_caller]
fn assert_names_holder(error: &LockError) {
    assert_eq!(error.kind(), LockErrorKind::TimedOut);
    let holders = error.holders().iter().map(|holder| holder.session.pid);
    assert!(holders.eq([Some(HOLDER)]), "{error:?}");
}

#[test]
fn error_of_a_transaction_names_the_holder() {
    let key = LockKey::from("connection/xact");
    let body = |_: &mut Contended| Ok::<_, LockError>(());
    let refused = AdvisoryLocking::with_advisory_xact_lock(&mut idle(), key, ONE_TRY, body);
    assert_names_holder(&refused.unwrap_err());
}

/// Sessions whose reply is no report.
fn malformed() -> [Contended; 2] {
    [Cell::Number(1), Cell::Texts(vec![None])].map(|report| Contended { report, ..idle() })
}

#[track_caller]
fn assert_malformed(error: &LockError, key: &LockKey) {
    assert_eq!(error.kind(), LockErrorKind::Database);
    assert_eq!(error.key(), Some(key));
}

#[test]
fn malformed_report_is_an_error_with_the_key() {
    let key = LockKey::from("connection/report");
    for mut session in malformed() {
        let report = AdvisoryLocking::advisory_lock_holders(&mut session, &key);
        assert_malformed(&report.unwrap_err(), &key);
    }
}

#[cfg(feature = "_async")]
mod asynchronous {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::connection::AsyncAdvisoryLocking;
    use crate::server_report::ServerReport;
    use crate::session::AsyncLockSession;

    impl AsyncLockSession for Contended {
        fn session_backend(&mut self) -> Backend {
            self.backend
        }

        fn session_transaction_state(&mut self) -> TransactionState {
            self.transaction
        }

        fn session_mark_broken(&mut self) {}

        fn session_start_terminate(&mut self, _pid: Option<i32>) {}

        async fn session_begin(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_rollback(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
            Ok(self.reply(statement))
        }
    }

    /// Returns the output of a future that never waits.
    fn ready<F: Future>(future: F) -> F::Output {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(future).poll(&mut context) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the session replies at once"),
        }
    }

    #[test]
    fn error_of_an_async_transaction_names_the_holder() {
        let (mut session, key) = (idle(), LockKey::from("connection/async-xact"));
        let body = async |_: &mut Contended| Ok::<_, LockError>(());
        let call = AsyncAdvisoryLocking::with_advisory_xact_lock(&mut session, key, ONE_TRY, body);
        assert_names_holder(&ready(call).unwrap_err());
    }

    #[test]
    fn malformed_async_report_is_an_error_with_the_key() {
        let key = LockKey::from("connection/async-report");
        for mut session in malformed() {
            let report = AsyncAdvisoryLocking::advisory_lock_holders(&mut session, &key);
            assert_malformed(&ready(report).unwrap_err(), &key);
        }
    }

    #[test]
    fn async_identify_sends_nothing_in_a_transaction() {
        for transaction in [TransactionState::open(1), TransactionState::in_test(0)] {
            let mut session = Contended::new(Backend::Postgres, transaction);
            let refused = ready(AsyncAdvisoryLocking::identify(&mut session));
            assert_eq!(refused.unwrap_err().kind(), LockErrorKind::InTransaction);
            assert_eq!(session.statements, 0, "{transaction:?}");
        }
    }

    #[test]
    fn async_identify_sends_nothing_without_locks() {
        let mut session = Contended::new(Backend::Sqlite, TransactionState::none());
        let report = ready(AsyncAdvisoryLocking::identify(&mut session));
        assert_eq!(report.unwrap(), ServerReport::sqlite());
        assert_eq!(session.statements, 0);
    }
}
