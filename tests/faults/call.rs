//! The calls of the public traits, as values.

use std::panic::resume_unwind;

use advisory_locking::{LockError, LockErrorKind};

use testkit::model::ClientPanic;

/// A method of the traits, and the end of its body.
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

/// Result of a call, as its caller sees it.
#[derive(Debug)]
pub(crate) enum CallResult {
    /// The lock was held until it was released.
    Held,
    /// The guard was dropped, which reports nothing.
    GuardDropped,
    /// The lock is contended.
    NotGranted,
    /// The body's own error.
    BodyFailed,
    Failed(LockErrorKind),
    /// The client or the body panicked.
    Panicked,
    /// The caller dropped the future.
    FutureDropped,
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
    pub(crate) const fn begins_transaction(self) -> bool {
        matches!(
            self,
            Self::InTransaction | Self::TryInTransaction | Self::AllowedInTransaction
        )
    }

    pub(crate) const fn panics(self) -> bool {
        matches!(self, Self::WithPanicking | Self::WithTransactionPanicking)
    }

    /// Returns `true` if the caller is in a transaction, for which it needs a connection.
    pub(crate) const fn needs_a_connection(self) -> bool {
        self.begins_transaction() || matches!(self, Self::InTestTransaction)
    }
}

/// End of a body that does not succeed.
pub(crate) fn fail(call: Call) -> Result<CallResult, CallError> {
    if call.panics() {
        // `panic!` would print.
        resume_unwind(Box::new(ClientPanic));
    }
    Err(CallError::Body)
}

pub(crate) fn to_call_result(ended: Result<CallResult, CallError>) -> CallResult {
    match ended {
        Ok(result) => result,
        Err(CallError::Body) => CallResult::BodyFailed,
        Err(CallError::Lock(error)) => match error.kind() {
            LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut => CallResult::NotGranted,
            kind => CallResult::Failed(kind),
        },
    }
}

/// Makes a call that pools have too: on `$on`, through `$trait`, blocking, or async with `async`
/// and `await`. `$body` runs while the library reports the lock as held.
macro_rules! call_anywhere {
    ($call:expr, $on:expr, $trait:ident, $key:expr, $options:expr, $body:expr $(, $async:ident, $await:ident)?) => {{
        let (key, options, body) = ($key, $options, $body);
        let ended: Result<CallResult, CallError> = match $call {
            Call::AcquireAndDrop => {
                match $trait::acquire_advisory_lock($on, key, options)$(.$await)? {
                    Ok(mut guard) => {
                        body(&mut *guard);
                        drop(guard);
                        Ok(CallResult::GuardDropped)
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Call::TryAcquire => {
                match $trait::try_acquire_advisory_lock($on, key, options)$(.$await)? {
                    Ok(None) => Ok(CallResult::NotGranted),
                    Ok(Some(mut guard)) => {
                        body(&mut *guard);
                        guard.release()$(.$await)?.map(|()| CallResult::Held).map_err(CallError::from)
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Call::With => {
                $trait::with_advisory_lock($on, key, options, $($async)? |session| {
                    body(session);
                    Ok(CallResult::Held)
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
                    Ok::<_, CallError>(CallResult::Held)
                })$(.$await)?;
                ended.map(|result| result.unwrap_or(CallResult::NotGranted))
            }
            Call::WithTransaction => {
                $trait::with_advisory_xact_lock($on, key, options, $($async)? |session| {
                    body(session);
                    Ok(CallResult::Held)
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
                    Ok::<_, CallError>(CallResult::Held)
                })$(.$await)?;
                ended.map(|result| result.unwrap_or(CallResult::NotGranted))
            }
            _ => match $trait::acquire_advisory_lock($on, key, options)$(.$await)? {
                Ok(mut guard) => {
                    body(&mut *guard);
                    guard.release()$(.$await)?.map(|()| CallResult::Held).map_err(CallError::from)
                }
                Err(error) => Err(error.into()),
            },
        };
        crate::call::to_call_result(ended)
    }};
}
pub(crate) use call_anywhere;

/// Makes any call on a connection.
macro_rules! call_on_a_connection {
    ($call:expr, $on:expr, $trait:ident, $key:expr, $options:expr, $body:expr $(, $async:ident, $await:ident)?) => {
        match $call {
            Call::InTransaction => crate::call::to_call_result(
                match $on.acquire_advisory_xact_lock($key, $options)$(.$await)? {
                    Ok(()) => {
                        $body($on);
                        Ok(CallResult::Held)
                    }
                    Err(error) => Err(error.into()),
                },
            ),
            Call::TryInTransaction => crate::call::to_call_result(
                match $on.try_acquire_advisory_xact_lock($key, $options)$(.$await)? {
                    Ok(true) => {
                        $body($on);
                        Ok(CallResult::Held)
                    }
                    Ok(false) => Ok(CallResult::NotGranted),
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
