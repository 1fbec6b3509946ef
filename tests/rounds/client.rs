//! The clients, behind one face that blocks.

use std::sync::LazyLock;

use ::diesel::Connection as _;
use ::diesel::pg::PgConnection;
use advisory_locking::session::{
    LockSession, Round, RoundKind, RoundRow, RoundStep, SessionError, StepKind, TokenSource,
};
#[cfg(any(feature = "diesel-async-postgres", feature = "sea-orm"))]
use advisory_locking::{AsyncLockPool, AsyncLockSession};
use advisory_locking::{LockKey, LockMode};
use tokio::runtime::Runtime;

/// What a client connects with: the server's URL, without parameters.
pub(crate) type Connect = fn(&str) -> Session;

type Ask = Box<dyn FnMut(&Round) -> Result<RoundRow, SessionError> + Send>;

/// A session of the server, and its process id.
pub(crate) struct Session {
    ask: Ask,
    pub(crate) pid: i32,
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

pub(crate) fn diesel(url: &str) -> Session {
    let mut conn = PgConnection::establish(url).unwrap();
    Session::new(move |round| LockSession::round(&mut conn, round))
}

#[cfg(feature = "diesel-async-postgres")]
pub(crate) fn diesel_async(url: &str) -> Session {
    use ::diesel_async::{AsyncConnection, AsyncPgConnection};
    let mut conn = RUNTIME.block_on(AsyncPgConnection::establish(url)).unwrap();
    Session::new(move |round| RUNTIME.block_on(AsyncLockSession::round(&mut conn, round)))
}

#[cfg(feature = "sea-orm")]
pub(crate) fn sea_orm(url: &str) -> Session {
    use ::sea_orm::{ConnectOptions, Database};
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let mut conn = RUNTIME.block_on(async {
        let db = Database::connect(options).await.unwrap();
        db.checkout().await.unwrap()
    });
    Session::new(move |round| RUNTIME.block_on(conn.round(round)))
}

impl Session {
    fn new(ask: impl FnMut(&Round) -> Result<RoundRow, SessionError> + Send + 'static) -> Self {
        let mut session = Self {
            ask: Box::new(ask),
            pid: 0,
        };
        session.pid = session
            .ask(RoundKind::Serve, &[], &TokenSource::TransactionId)
            .unwrap()
            .pid;
        session
    }

    /// Sends a round that means this session.
    pub(crate) fn ask(
        &mut self,
        kind: RoundKind,
        steps: &[RoundStep],
        tokens: &TokenSource,
    ) -> Result<RoundRow, SessionError> {
        self.ask_meaning(self.pid, kind, steps, tokens)
    }

    pub(crate) fn ask_meaning(
        &mut self,
        pid: i32,
        kind: RoundKind,
        steps: &[RoundStep],
        tokens: &TokenSource,
    ) -> Result<RoundRow, SessionError> {
        (self.ask)(&Round::new(kind, pid, steps.to_vec(), tokens.clone()))
    }

    /// Sends steps that must be answered, and without tokens.
    pub(crate) fn serve(&mut self, steps: &[RoundStep]) -> Vec<Option<i64>> {
        let row = self.serve_with(steps, &TokenSource::TransactionId);
        assert_eq!(row.token, None);
        row.answers.expect("an answer for each step")
    }

    pub(crate) fn serve_with(&mut self, steps: &[RoundStep], tokens: &TokenSource) -> RoundRow {
        let row = self.ask(RoundKind::Serve, steps, tokens).unwrap();
        assert_eq!(row.pid, self.pid);
        row
    }

    pub(crate) fn undo(&mut self, steps: &[RoundStep]) -> Vec<Option<i64>> {
        let row = self
            .ask(RoundKind::Undo, steps, &TokenSource::TransactionId)
            .unwrap();
        assert_eq!((row.token, row.pid), (None, self.pid));
        row.answers.expect("an answer for each step")
    }
}

const TAKE: StepKind = StepKind::Take { fenced: false };

pub(crate) fn take_in(mode: LockMode, key: &LockKey) -> RoundStep {
    RoundStep::new(TAKE, key.space(), mode)
}

pub(crate) fn give_back_in(mode: LockMode, key: &LockKey) -> RoundStep {
    RoundStep::new(StepKind::GiveBack, key.space(), mode)
}

pub(crate) fn take(key: &LockKey) -> RoundStep {
    take_in(LockMode::Exclusive, key)
}

pub(crate) fn take_fenced(key: &LockKey) -> RoundStep {
    let fenced = StepKind::Take { fenced: true };
    RoundStep::new(fenced, key.space(), LockMode::Exclusive)
}

pub(crate) fn give_back(key: &LockKey) -> RoundStep {
    give_back_in(LockMode::Exclusive, key)
}

pub(crate) fn draw(key: &LockKey) -> RoundStep {
    RoundStep::new(StepKind::Draw, key.space(), LockMode::Exclusive)
}
