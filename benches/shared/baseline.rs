//! Hand-written baselines: the statements of one acquire and release, written for Diesel.
//!
//! Each statement has a static `QueryId`, so Diesel's statement cache does not build its text.

use std::marker::PhantomData;

use advisory_locking::session::{
    Backend, LockReply, LockSession, Row, Script, ServerSigns, SessionError, Statement,
    TransactionState,
};
use advisory_locking::{AdvisoryLocking, LockKey, LockOptions, RawLockKey};
use diesel::QueryResult;
use diesel::pg::data_types::PgTimestamp;
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Timestamptz};

#[diesel::declare_sql_function]
extern "SQL" {
    fn pg_try_advisory_lock(key: BigInt) -> Bool;
    fn pg_try_advisory_xact_lock(key: BigInt) -> Bool;
    fn pg_advisory_unlock(key: BigInt) -> Bool;
}

/// Returns the raw 64-bit key.
pub(crate) fn number(key: &LockKey) -> i64 {
    match key.raw() {
        RawLockKey::Single(number) => number,
        pair => panic!("{pair:?} is a pair"),
    }
}

/// The statements that the crate sends for one acquire and release.
#[derive(Clone, Copy)]
pub(crate) struct LockStatements {
    pub(crate) try_sql: &'static str,
    pub(crate) release_sql: &'static str,
}

impl LockStatements {
    pub(crate) fn new(key: &LockKey) -> Self {
        let mut recorder = Recorder(Vec::new());
        let guard = recorder.acquire_advisory_lock(key, LockOptions::no_wait());
        guard.unwrap().release().unwrap();
        let [try_sql, release_sql] = recorder.0.try_into().expect("two statements");
        Self {
            try_sql,
            release_sql,
        }
    }

    pub(crate) fn try_acquire(self, key: i64) -> Baseline<Try> {
        let [refuse_stub, refuse_standby] = REFUSED_SIGNS.map(Value::Int4);
        let binds = vec![refuse_stub, refuse_standby, Value::Int8(key)];
        Baseline::new(self.try_sql, binds)
    }

    /// The try as it would be if it did not carry the signs of the server.
    #[allow(dead_code, reason = "one of two benches measures it")]
    pub(crate) fn try_without_signs(key: i64) -> Baseline<TryWithoutSigns> {
        let sql = "SELECT pg_catalog.pg_try_advisory_lock($1)::pg_catalog.int4, \
                   pg_catalog.pg_backend_pid(), CURRENT_TIMESTAMP";
        Baseline::new(sql, vec![Value::Int8(key)])
    }

    pub(crate) fn release(self, key: i64, granted: TryReplyColumns) -> Baseline<Release> {
        let (_, pid, began) = granted;
        let binds = vec![
            Value::Int4(pid),
            Value::Int8(key),
            Value::Timestamptz(began),
        ];
        Baseline::new(self.release_sql, binds)
    }
}

/// The first two parameters of a try, which refuse a stub server and a standby unless they are 0.
pub(crate) const REFUSED_SIGNS: [i32; 2] = [1, 1];

/// Columns of a try: granted (1), process id of the session, begin of the transaction.
pub(crate) type TryReplyColumns = (Option<i32>, i32, PgTimestamp);

/// Columns of a release: released, process id of the session, begin of the transaction.
pub(crate) type ReleaseReplyColumns = (Option<bool>, i32, PgTimestamp);

enum Value {
    Int4(i32),
    Int8(i64),
    Timestamptz(PgTimestamp),
}

pub(crate) struct Try;
pub(crate) struct TryWithoutSigns;
pub(crate) struct Release;

pub(crate) struct Baseline<Id> {
    sql: &'static str,
    binds: Vec<Value>,
    id: PhantomData<Id>,
}

impl<Id> Baseline<Id> {
    const fn new(sql: &'static str, binds: Vec<Value>) -> Self {
        Self {
            sql,
            binds,
            id: PhantomData,
        }
    }
}

impl<Id> QueryFragment<Pg> for Baseline<Id> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut pieces = self.sql.split('$');
        pass.push_sql(pieces.next().unwrap());
        for (piece, bind) in pieces.zip(&self.binds) {
            match bind {
                Value::Int4(number) => pass.push_bind_param::<Integer, _>(number)?,
                Value::Int8(number) => pass.push_bind_param::<BigInt, _>(number)?,
                Value::Timestamptz(time) => pass.push_bind_param::<Timestamptz, _>(time)?,
            }
            pass.push_sql(&piece[1..]);
        }
        Ok(())
    }
}

impl<Id: 'static> QueryId for Baseline<Id> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Baseline<Try> {
    type SqlType = (Nullable<Integer>, Integer, Timestamptz);
}

impl Query for Baseline<TryWithoutSigns> {
    type SqlType = <Baseline<Try> as Query>::SqlType;
}

impl Query for Baseline<Release> {
    type SqlType = (Nullable<Bool>, Integer, Timestamptz);
}

impl<Id> diesel::RunQueryDsl<PgConnection> for Baseline<Id> {}

struct Recorder(Vec<&'static str>);

impl LockSession for Recorder {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
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
        self.0.push(statement.sql());
        Ok(Row::from(LockReply {
            answer: Some(true),
            pid: 1,
            transaction_began: 0,
            server_signs: ServerSigns::NONE,
        }))
    }
}
