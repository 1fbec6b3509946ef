//! The clients, behind one face that blocks.

use std::sync::LazyLock;

use ::diesel::Connection as _;
use ::diesel::pg::PgConnection;
#[cfg(feature = "sea-orm")]
use advisory_locking::session::AsyncLockPool;
#[cfg(any(feature = "diesel-async-postgres", feature = "sea-orm"))]
use advisory_locking::session::AsyncLockSession;
use advisory_locking::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, LockSession, SessionError, SingleOp,
    TokenSource,
};
use advisory_locking::{LockKey, LockMode};
use tokio::runtime::Runtime;

/// What a client connects with: the server's URL, without parameters.
pub(crate) type Connect = fn(&str) -> Session;

/// What a locker asks of a client.
trait Client: Send {
    fn round(&mut self, round: &LockBatch) -> Result<BatchReply, SessionError>;

    fn single_step(&mut self, step: &SingleOp) -> Result<Option<bool>, SessionError>;
}

/// A session of the server, and its process id.
pub(crate) struct Session {
    client: Box<dyn Client>,
    pub(crate) pid: i32,
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

pub(crate) fn diesel(url: &str) -> Session {
    Session::new(Blocking(PgConnection::establish(url).unwrap()))
}

struct Blocking(PgConnection);

impl Client for Blocking {
    fn round(&mut self, round: &LockBatch) -> Result<BatchReply, SessionError> {
        self.0.session_execute_batch(round)
    }

    fn single_step(&mut self, step: &SingleOp) -> Result<Option<bool>, SessionError> {
        self.0.session_execute_single(step)
    }
}

/// Something that leads to an async session.
#[cfg(any(feature = "diesel-async-postgres", feature = "sea-orm"))]
struct Async<C>(C);

#[cfg(any(feature = "diesel-async-postgres", feature = "sea-orm"))]
impl<C: std::ops::DerefMut<Target: AsyncLockSession> + Send> Client for Async<C> {
    fn round(&mut self, round: &LockBatch) -> Result<BatchReply, SessionError> {
        RUNTIME.block_on(self.0.session_execute_batch(round))
    }

    fn single_step(&mut self, step: &SingleOp) -> Result<Option<bool>, SessionError> {
        RUNTIME.block_on(self.0.session_execute_single(step))
    }
}

#[cfg(feature = "diesel-async-postgres")]
pub(crate) fn diesel_async(url: &str) -> Session {
    use ::diesel_async::{AsyncConnection, AsyncPgConnection};
    let conn = RUNTIME.block_on(AsyncPgConnection::establish(url)).unwrap();
    Session::new(Async(Box::new(conn)))
}

#[cfg(feature = "sea-orm")]
pub(crate) fn sea_orm(url: &str) -> Session {
    use ::sea_orm::{ConnectOptions, Database};
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let conn = RUNTIME.block_on(async {
        let db = Database::connect(options).await.unwrap();
        db.checkout().await.unwrap()
    });
    Session::new(Async(conn))
}

impl Session {
    fn new(client: impl Client + 'static) -> Self {
        let mut session = Self {
            client: Box::new(client),
            pid: 0,
        };
        session.pid = session
            .ask(BatchMode::Execute, &[], &TokenSource::TransactionId)
            .unwrap()
            .pid;
        session
    }

    /// Sends a round that means this session.
    pub(crate) fn ask(
        &mut self,
        kind: BatchMode,
        steps: &[LockOp],
        tokens: &TokenSource,
    ) -> Result<BatchReply, SessionError> {
        self.ask_meaning(self.pid, kind, steps, tokens)
    }

    pub(crate) fn ask_meaning(
        &mut self,
        pid: i32,
        kind: BatchMode,
        steps: &[LockOp],
        tokens: &TokenSource,
    ) -> Result<BatchReply, SessionError> {
        let round = LockBatch::new(kind, pid, steps.to_vec(), tokens.clone());
        self.client.round(&round)
    }

    /// Sends a single step that means this session.
    pub(crate) fn single(&mut self, step: LockOp) -> Option<bool> {
        self.single_meaning(self.pid, step).unwrap()
    }

    pub(crate) fn single_meaning(
        &mut self,
        pid: i32,
        step: LockOp,
    ) -> Result<Option<bool>, SessionError> {
        let tokens = TokenSource::TransactionId;
        let round = LockBatch::new(BatchMode::Execute, pid, vec![step], tokens);
        let single = round.single().expect("it draws no token");
        self.client.single_step(&single)
    }

    /// Sends steps that must be answered, and without tokens.
    pub(crate) fn serve(&mut self, steps: &[LockOp]) -> Vec<Option<i64>> {
        let row = self.serve_with(steps, &TokenSource::TransactionId);
        assert_eq!(row.token, None);
        row.answers.expect("an answer for each step")
    }

    pub(crate) fn serve_with(&mut self, steps: &[LockOp], tokens: &TokenSource) -> BatchReply {
        let row = self.ask(BatchMode::Execute, steps, tokens).unwrap();
        assert_eq!(row.pid, self.pid);
        row
    }

    pub(crate) fn undo(&mut self, steps: &[LockOp]) -> Vec<Option<i64>> {
        let row = self
            .ask(BatchMode::Compensate, steps, &TokenSource::TransactionId)
            .unwrap();
        assert_eq!((row.token, row.pid), (None, self.pid));
        row.answers.expect("an answer for each step")
    }
}

const TAKE: LockOpKind = LockOpKind::Acquire { with_token: false };

pub(crate) fn take_in(mode: LockMode, key: &LockKey) -> LockOp {
    LockOp::new(TAKE, key.raw(), mode)
}

pub(crate) fn give_back_in(mode: LockMode, key: &LockKey) -> LockOp {
    LockOp::new(LockOpKind::Release, key.raw(), mode)
}

pub(crate) fn take(key: &LockKey) -> LockOp {
    take_in(LockMode::Exclusive, key)
}

pub(crate) fn take_fenced(key: &LockKey) -> LockOp {
    let fenced = LockOpKind::Acquire { with_token: true };
    LockOp::new(fenced, key.raw(), LockMode::Exclusive)
}

pub(crate) fn give_back(key: &LockKey) -> LockOp {
    give_back_in(LockMode::Exclusive, key)
}

pub(crate) fn draw(key: &LockKey) -> LockOp {
    LockOp::new(LockOpKind::IssueToken, key.raw(), LockMode::Exclusive)
}
