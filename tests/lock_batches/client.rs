//! The clients, behind one blocking interface.

use std::sync::LazyLock;

use ::diesel::Connection as _;
use ::diesel::pg::PgConnection;
use advisory_locking::session::AsyncLockPool;
use advisory_locking::session::AsyncLockSession;
use advisory_locking::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, LockSession, Row, SessionError,
    Statement, TokenSource,
};
use advisory_locking::{LockKey, LockMode};
use tokio::runtime::Runtime;

/// Opens a session at the URL of a server.
pub(crate) type Connect = fn(&str) -> Session;

/// The part of a client that a lock manager uses.
trait Client: Send {
    fn query(&mut self, statement: &Statement) -> Result<Row, SessionError>;
}

/// A server session and its process id.
pub(crate) struct Session {
    client: Box<dyn Client>,
    pub(crate) pid: i32,
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

pub(crate) fn diesel(url: &str) -> Session {
    Session::new(Blocking(PgConnection::establish(url).unwrap()))
}

pub(crate) fn rust_postgres(url: &str) -> Session {
    let client = ::postgres::Client::connect(url, ::postgres::NoTls);
    Session::new(Blocking(client.unwrap()))
}

struct Blocking<C>(C);

impl<C: LockSession + Send> Client for Blocking<C> {
    fn query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.0.session_query(statement)
    }
}

/// A connection, or a pointer to one, of an async client.
struct Async<C>(C);

impl<C: std::ops::DerefMut<Target: AsyncLockSession> + Send> Client for Async<C> {
    fn query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        RUNTIME.block_on(self.0.session_query(statement))
    }
}

pub(crate) fn diesel_async(url: &str) -> Session {
    use ::diesel_async::{AsyncConnection, AsyncPgConnection};
    let conn = RUNTIME.block_on(AsyncPgConnection::establish(url)).unwrap();
    Session::new(Async(Box::new(conn)))
}

pub(crate) fn tokio_postgres(url: &str) -> Session {
    use ::tokio_postgres::{NoTls, connect};
    let client = RUNTIME.block_on(async {
        let (client, connection) = connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    });
    Session::new(Async(Box::new(client)))
}

pub(crate) fn deadpool_postgres(url: &str) -> Session {
    use ::deadpool_postgres::{Manager, Pool};
    let manager = Manager::new(url.parse().unwrap(), ::tokio_postgres::NoTls);
    let pool = Pool::builder(manager).max_size(1).build().unwrap();
    let conn = RUNTIME.block_on(pool.checkout()).unwrap();
    Session::new(Async(conn))
}

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

pub(crate) fn sqlx(url: &str) -> Session {
    use ::sqlx::{Connection, PgConnection};
    let conn = RUNTIME.block_on(PgConnection::connect(url)).unwrap();
    Session::new(Async(Box::new(conn)))
}

pub(crate) fn sqlx_pool(url: &str) -> Session {
    let conn = RUNTIME.block_on(async {
        let pool = ::sqlx::PgPool::connect(url).await.unwrap();
        pool.checkout().await.unwrap()
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
            .send(BatchMode::Execute, &[], &TokenSource::TransactionId)
            .unwrap()
            .pid;
        session
    }

    /// Sends a batch to this session, with the text of any batch.
    pub(crate) fn send(
        &mut self,
        mode: BatchMode,
        ops: &[LockOp],
        tokens: &TokenSource,
    ) -> Result<BatchReply, SessionError> {
        // With a process id, one operation without a token would use the short text.
        let pid = if ops.len() == 1 { 0 } else { self.pid };
        self.send_to_pid(pid, mode, ops, tokens)
    }

    pub(crate) fn send_to_pid(
        &mut self,
        pid: i32,
        mode: BatchMode,
        ops: &[LockOp],
        tokens: &TokenSource,
    ) -> Result<BatchReply, SessionError> {
        let batch = LockBatch::new(mode, pid, ops, tokens.clone());
        let row = self.client.query(&Statement::Batch(batch))?;
        BatchReply::from_row(row, pid)
    }

    /// Sends one operation to this session, with the short text.
    pub(crate) fn single(&mut self, op: LockOp) -> Option<bool> {
        self.single_to_pid(self.pid, op)
    }

    pub(crate) fn single_to_pid(&mut self, pid: i32, op: LockOp) -> Option<bool> {
        let tokens = TokenSource::TransactionId;
        let reply = self.send_to_pid(pid, BatchMode::Execute, &[op], &tokens);
        let answers = reply.unwrap().answers?;
        assert_eq!(answers.len(), 1);
        Some(answers[0].is_some())
    }

    /// Executes operations that must have an answer and want no token.
    pub(crate) fn execute(&mut self, ops: &[LockOp]) -> Vec<Option<i64>> {
        let reply = self.execute_with(ops, &TokenSource::TransactionId);
        assert_eq!(reply.token, None);
        reply.answers.expect("an answer for each operation")
    }

    pub(crate) fn execute_with(&mut self, ops: &[LockOp], tokens: &TokenSource) -> BatchReply {
        let reply = self.send(BatchMode::Execute, ops, tokens).unwrap();
        assert_eq!(reply.pid, self.pid);
        reply
    }

    pub(crate) fn compensate(&mut self, ops: &[LockOp]) -> Vec<Option<i64>> {
        let reply = self
            .send(BatchMode::Compensate, ops, &TokenSource::TransactionId)
            .unwrap();
        assert_eq!((reply.token, reply.pid), (None, self.pid));
        reply.answers.expect("an answer for each operation")
    }
}

const ACQUIRE: LockOpKind = LockOpKind::Acquire { with_token: false };

pub(crate) fn acquire_in(mode: LockMode, key: &LockKey) -> LockOp {
    LockOp::new(ACQUIRE, key.raw(), mode)
}

pub(crate) fn release_in(mode: LockMode, key: &LockKey) -> LockOp {
    LockOp::new(LockOpKind::Release, key.raw(), mode)
}

pub(crate) fn acquire(key: &LockKey) -> LockOp {
    acquire_in(LockMode::Exclusive, key)
}

pub(crate) fn acquire_with_token(key: &LockKey) -> LockOp {
    let kind = LockOpKind::Acquire { with_token: true };
    LockOp::new(kind, key.raw(), LockMode::Exclusive)
}

pub(crate) fn release(key: &LockKey) -> LockOp {
    release_in(LockMode::Exclusive, key)
}

pub(crate) fn issue_token(key: &LockKey) -> LockOp {
    LockOp::new(LockOpKind::IssueToken, key.raw(), LockMode::Exclusive)
}
