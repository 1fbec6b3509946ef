//! The client of a call: a connection or a pool, blocking or async.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions, PooledAdvisoryLocking};
#[cfg(feature = "bb8")]
use advisory_locking::{AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking};

#[cfg(feature = "bb8")]
use crate::asynchronous::{AsyncSession, run_until};
use crate::call::{Call, CallError, CallResult, call_anywhere, call_on_a_connection};
use crate::pool::Pool;
use testkit::model::{ClientPanic, ModelSession};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Client {
    Connection,
    Pool,
    #[cfg(feature = "bb8")]
    AsyncConnection,
    #[cfg(feature = "bb8")]
    AsyncPool,
}

#[cfg(not(feature = "bb8"))]
pub(crate) const CLIENTS: &[Client] = &[Client::Connection, Client::Pool];
#[cfg(feature = "bb8")]
pub(crate) const CLIENTS: &[Client] = &[
    Client::Connection,
    Client::Pool,
    Client::AsyncConnection,
    Client::AsyncPool,
];

/// Result of a call, and its session.
pub(crate) struct CallReport {
    pub(crate) result: CallResult,
    /// The session, unless the pool has discarded it.
    pub(crate) left: Option<ModelSession>,
}

impl Client {
    pub(crate) fn pools(self) -> bool {
        match self {
            Self::Pool => true,
            #[cfg(feature = "bb8")]
            Self::AsyncPool => true,
            _ => false,
        }
    }

    /// Pairs of "SQLSTATE hidden" and "key already held". One client has all four combinations,
    /// which is enough because all clients drive the same machines.
    pub(crate) const fn conditions(self) -> &'static [(bool, bool)] {
        match self {
            Self::Connection => &[(false, false), (false, true), (true, false), (true, true)],
            _ => &[(true, false), (false, true)],
        }
    }

    /// Makes the call. `inspect` runs while the library reports the lock as held.
    #[cfg_attr(
        not(feature = "bb8"),
        allow(unused_variables, reason = "only a future can be dropped")
    )]
    pub(crate) fn call(
        self,
        call: Call,
        mut session: ModelSession,
        key: &LockKey,
        options: LockOptions,
        dropped_at: Option<usize>,
        inspect: impl Fn() + Sync,
    ) -> CallReport {
        match self {
            Self::Connection => {
                let body = &|_: &mut ModelSession| inspect();
                let result = catch_client_panic(|| {
                    let conn = &mut session;
                    call_on_a_connection!(call, conn, AdvisoryLocking, key, options, body)
                });
                CallReport {
                    result,
                    left: Some(session),
                }
            }
            Self::Pool => {
                let pool = Pool::of(session, |session| session);
                let body = &|_: &mut ModelSession| inspect();
                let result = catch_client_panic(|| {
                    call_anywhere!(call, &pool, PooledAdvisoryLocking, key, options, body)
                });
                CallReport {
                    result,
                    left: pool.into_idle(),
                }
            }
            #[cfg(feature = "bb8")]
            Self::AsyncConnection => {
                let mut session = AsyncSession(session);
                let body = &|_: &mut AsyncSession| inspect();
                let result = catch_client_panic(|| {
                    let conn = &mut session;
                    let call = async {
                        call_on_a_connection!(
                            call,
                            conn,
                            AsyncAdvisoryLocking,
                            key,
                            options,
                            body,
                            async,
                            await
                        )
                    };
                    run_until(call, dropped_at).unwrap_or(CallResult::FutureDropped)
                });
                CallReport {
                    result,
                    left: Some(session.0),
                }
            }
            #[cfg(feature = "bb8")]
            Self::AsyncPool => {
                let pool = Pool::of(session, AsyncSession);
                let body = &|_: &mut AsyncSession| inspect();
                let result = catch_client_panic(|| {
                    let call = async {
                        call_anywhere!(
                            call,
                            &pool,
                            AsyncPooledAdvisoryLocking,
                            key,
                            options,
                            body,
                            async,
                            await
                        )
                    };
                    run_until(call, dropped_at).unwrap_or(CallResult::FutureDropped)
                });
                CallReport {
                    result,
                    left: pool.into_idle().map(|session| session.0),
                }
            }
        }
    }
}

fn catch_client_panic(call: impl FnOnce() -> CallResult) -> CallResult {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        if !payload.is::<ClientPanic>() {
            resume_unwind(payload);
        }
        CallResult::Panicked
    })
}
