//! Who makes a call: a connection or a pool, blocking or async.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions, PooledAdvisoryLocking};
#[cfg(feature = "bb8")]
use advisory_locking::{AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking};

#[cfg(feature = "bb8")]
use crate::asynchronous::{AsyncSession, run_until};
use crate::call::{Call, CallError, Told, call_anywhere, call_on_a_connection};
use crate::model::{ClientPanic, ModelSession};
use crate::pool::Pool;

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

/// What came of a call.
pub(crate) struct Called {
    pub(crate) told: Told,
    /// The session; a pool may have given it up.
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

    /// Whether codes are hidden, and whether a level is held already. Once for every client, and in all ways for one of them: they all
    /// drive the same machines.
    pub(crate) const fn conditions(self) -> &'static [(bool, bool)] {
        match self {
            Self::Connection => &[(false, false), (false, true), (true, false), (true, true)],
            _ => &[(true, false), (false, true)],
        }
    }

    /// Makes the call. `look` is run while the lock is thought to be held.
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
        look: impl Fn() + Sync,
    ) -> Called {
        match self {
            Self::Connection => {
                let body = &|_: &mut ModelSession| look();
                let told = unless_it_panics(|| {
                    let conn = &mut session;
                    call_on_a_connection!(call, conn, AdvisoryLocking, key, options, body)
                });
                Called {
                    told,
                    left: Some(session),
                }
            }
            Self::Pool => {
                let pool = Pool::of(session, |session| session);
                let body = &|_: &mut ModelSession| look();
                let told = unless_it_panics(|| {
                    call_anywhere!(call, &pool, PooledAdvisoryLocking, key, options, body)
                });
                Called {
                    told,
                    left: pool.into_idle(),
                }
            }
            #[cfg(feature = "bb8")]
            Self::AsyncConnection => {
                let mut session = AsyncSession(session);
                let body = &|_: &mut AsyncSession| look();
                let told = unless_it_panics(|| {
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
                    run_until(call, dropped_at).unwrap_or(Told::Abandoned)
                });
                Called {
                    told,
                    left: Some(session.0),
                }
            }
            #[cfg(feature = "bb8")]
            Self::AsyncPool => {
                let pool = Pool::of(session, AsyncSession);
                let body = &|_: &mut AsyncSession| look();
                let told = unless_it_panics(|| {
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
                    run_until(call, dropped_at).unwrap_or(Told::Abandoned)
                });
                Called {
                    told,
                    left: pool.into_idle().map(|session| session.0),
                }
            }
        }
    }
}

fn unless_it_panics(call: impl FnOnce() -> Told) -> Told {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        if !payload.is::<ClientPanic>() {
            resume_unwind(payload);
        }
        Told::Panicked
    })
}
