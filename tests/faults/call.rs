//! The calls of the traits, behind one face.

use std::panic::resume_unwind;

use advisory_locking::{LockError, LockErrorKind};

use crate::model::ClientPanic;

/// How a lock is asked for, and how the body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Call {
    Acquire,
    /// The guard is dropped.
    AcquireAndDrop,
    TryAcquire,
    With,
    WithFailing,
    WithPanicking,
    TryWith,
    WithTransaction,
    WithTransactionFailing,
    WithTransactionPanicking,
    TryWithTransaction,
    /// Inside the caller's transaction, which is committed afterwards.
    InTransaction,
    TryInTransaction,
    /// A session-level lock inside the caller's transaction.
    AllowedInTransaction,
    /// A session-level lock in a test's transaction.
    InTestTransaction,
}

pub(crate) const CALLS: [Call; 15] = [
    Call::Acquire,
    Call::AcquireAndDrop,
    Call::TryAcquire,
    Call::With,
    Call::WithFailing,
    Call::WithPanicking,
    Call::TryWith,
    Call::WithTransaction,
    Call::WithTransactionFailing,
    Call::WithTransactionPanicking,
    Call::TryWithTransaction,
    Call::InTransaction,
    Call::TryInTransaction,
    Call::AllowedInTransaction,
    Call::InTestTransaction,
];

/// What the caller was told.
#[derive(Debug)]
pub(crate) enum Told {
    /// The lock was held until it was released.
    Held,
    /// Held, and dropped: nobody could be told more.
    Dropped,
    /// Somebody else has it.
    NotGranted,
    /// The body's own error.
    BodyFailed,
    Failed(LockErrorKind),
    /// Nothing: the client panicked, or the body did.
    Panicked,
    /// Nothing: the caller waited no longer.
    Abandoned,
}

#[derive(Debug)]
pub(crate) enum CallError {
    Body,
    Lock(LockError),
}

impl From<LockError> for CallError {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl Call {
    pub(crate) const fn begins_by_hand(self) -> bool {
        matches!(
            self,
            Self::InTransaction | Self::TryInTransaction | Self::AllowedInTransaction
        )
    }

    pub(crate) const fn panics(self) -> bool {
        matches!(self, Self::WithPanicking | Self::WithTransactionPanicking)
    }

    /// Whether the caller is in a transaction of some kind, for which it needs a connection of its own.
    pub(crate) const fn needs_a_connection(self) -> bool {
        self.begins_by_hand() || matches!(self, Self::InTestTransaction)
    }
}

/// What a body does that does not succeed.
pub(crate) fn fail(call: Call) -> Result<Told, CallError> {
    if call.panics() {
        // Not `panic!`, which would print.
        resume_unwind(Box::new(ClientPanic));
    }
    Err(CallError::Body)
}

pub(crate) fn told(ended: Result<Told, CallError>) -> Told {
    match ended {
        Ok(told) => told,
        Err(CallError::Body) => Told::BodyFailed,
        Err(CallError::Lock(error)) => match error.kind() {
            LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut => Told::NotGranted,
            kind => Told::Failed(kind),
        },
    }
}

/// The calls that a pool has too: on `$on`, through `$trait`, blocking, or async with `async` and `await`. `$body` is run while the
/// lock is thought to be held.
macro_rules! call_anywhere {
    ($call:expr, $on:expr, $trait:ident, $key:expr, $options:expr, $body:expr $(, $async:ident, $await:ident)?) => {{
        let (key, options, body) = ($key, $options, $body);
        let ended: Result<Told, CallError> = match $call {
            Call::AcquireAndDrop => {
                match $trait::acquire_advisory_lock($on, key, options)$(.$await)? {
                    Ok(mut guard) => {
                        body(&mut *guard);
                        drop(guard);
                        Ok(Told::Dropped)
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Call::TryAcquire => {
                match $trait::try_acquire_advisory_lock($on, key, options)$(.$await)? {
                    Ok(None) => Ok(Told::NotGranted),
                    Ok(Some(mut guard)) => {
                        body(&mut *guard);
                        guard.release()$(.$await)?.map(|()| Told::Held).map_err(CallError::from)
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Call::With => {
                $trait::with_advisory_lock($on, key, options, $($async)? |session| {
                    body(session);
                    Ok(Told::Held)
                })$(.$await)?
            }
            Call::WithFailing | Call::WithPanicking => {
                $trait::with_advisory_lock($on, key, options, $($async)? |session| {
                    body(session);
                    crate::call::fail($call)
                })$(.$await)?
            }
            Call::TryWith => {
                let ended = $trait::try_with_advisory_lock($on, key, options, $($async)? |session| {
                    body(session);
                    Ok::<_, CallError>(Told::Held)
                })$(.$await)?;
                ended.map(|told| told.unwrap_or(Told::NotGranted))
            }
            Call::WithTransaction => {
                $trait::with_advisory_xact_lock($on, key, options, $($async)? |session| {
                    body(session);
                    Ok(Told::Held)
                })$(.$await)?
            }
            Call::WithTransactionFailing | Call::WithTransactionPanicking => {
                $trait::with_advisory_xact_lock($on, key, options, $($async)? |session| {
                    body(session);
                    crate::call::fail($call)
                })$(.$await)?
            }
            Call::TryWithTransaction => {
                let ended = $trait::try_with_advisory_xact_lock($on, key, options, $($async)? |session| {
                    body(session);
                    Ok::<_, CallError>(Told::Held)
                })$(.$await)?;
                ended.map(|told| told.unwrap_or(Told::NotGranted))
            }
            _ => match $trait::acquire_advisory_lock($on, key, options)$(.$await)? {
                Ok(mut guard) => {
                    body(&mut *guard);
                    guard.release()$(.$await)?.map(|()| Told::Held).map_err(CallError::from)
                }
                Err(error) => Err(error.into()),
            },
        };
        crate::call::told(ended)
    }};
}
pub(crate) use call_anywhere;

/// All calls, on a connection.
macro_rules! call_on_a_connection {
    ($call:expr, $on:expr, $trait:ident, $key:expr, $options:expr, $body:expr $(, $async:ident, $await:ident)?) => {
        match $call {
            Call::InTransaction => crate::call::told(
                match $on.acquire_advisory_xact_lock($key, $options)$(.$await)? {
                    Ok(()) => {
                        $body($on);
                        Ok(Told::Held)
                    }
                    Err(error) => Err(error.into()),
                },
            ),
            Call::TryInTransaction => crate::call::told(
                match $on.try_acquire_advisory_xact_lock($key, $options)$(.$await)? {
                    Ok(true) => {
                        $body($on);
                        Ok(Told::Held)
                    }
                    Ok(false) => Ok(Told::NotGranted),
                    Err(error) => Err(error.into()),
                },
            ),
            Call::AllowedInTransaction => call_anywhere!(
                Call::Acquire, $on, $trait, $key, $options.allow_in_transaction(), $body $(, $async, $await)?
            ),
            call => call_anywhere!(call, $on, $trait, $key, $options, $body $(, $async, $await)?),
        }
    };
}
pub(crate) use call_on_a_connection;
