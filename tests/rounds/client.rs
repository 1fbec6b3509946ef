//! The clients, behind one face that blocks.

use std::sync::LazyLock;

use ::diesel::Connection as _;
use ::diesel::pg::PgConnection;
#[cfg(feature = "sea-orm")]
use advisory_locking::AsyncLockPool;
#[cfg(any(feature = "diesel-async-postgres", feature = "sea-orm"))]
use advisory_locking::AsyncLockSession;
use advisory_locking::session::{
    LockSession, Round, RoundKind, RoundRow, RoundStep, SessionError, SingleStep, StepKind,
    TokenSource,
};
use advisory_locking::{LockKey, LockMode};
use tokio::runtime::Runtime;

/// What a client connects with: the server's URL, without parameters.
pub(crate) type Connect = fn(&str) -> Session;

/// What a locker asks of a client.
trait Client: Send {
    fn round(&mut self, round: &Round) -> Result<RoundRow, SessionError>;

    fn single_step(&mut self, step: &SingleStep) -> Result<Option<bool>, SessionError>;
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
    fn round(&mut self, round: &Round) -> Result<RoundRow, SessionError> {
        self.0.round(round)
    }

    fn single_step(&mut self, step: &SingleStep) -> Result<Option<bool>, SessionError> {
        self.0.single_step(step)
    }
}

/// Something that leads to an async session.
#[cfg(any(feature = "diesel-async-postgres", feature = "sea-orm"))]
struct Async<C>(C);

#[cfg(any(feature = "diesel-async-postgres", feature = "sea-orm"))]
impl<C: std::ops::DerefMut<Target: AsyncLockSession> + Send> Client for Async<C> {
    fn round(&mut self, round: &Round) -> Result<RoundRow, SessionError> {
        RUNTIME.block_on(self.0.round(round))
    }

    fn single_step(&mut self, step: &SingleStep) -> Result<Option<bool>, SessionError> {
        RUNTIME.block_on(self.0.single_step(step))
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
        let round = Round::new(kind, pid, steps.to_vec(), tokens.clone());
        self.client.round(&round)
    }

    /// Sends a single step that means this session.
    pub(crate) fn single(&mut self, step: RoundStep) -> Option<bool> {
        self.single_meaning(self.pid, step).unwrap()
    }

    pub(crate) fn single_meaning(
        &mut self,
        pid: i32,
        step: RoundStep,
    ) -> Result<Option<bool>, SessionError> {
        let tokens = TokenSource::TransactionId;
        let round = Round::new(RoundKind::Serve, pid, vec![step], tokens);
        let single = round.single().expect("it draws no token");
        self.client.single_step(&single)
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
