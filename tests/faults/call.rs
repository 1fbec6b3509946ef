//! The calls of the trait, behind one face.

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions};

use crate::model::ModelSession;

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Call {
    Acquire,
    TryAcquire,
    With,
    WithFailing,
    WithTransaction,
    WithTransactionFailing,
    TryWithTransaction,
    /// Inside the caller's transaction, which is committed afterwards.
    InTransaction,
    TryInTransaction,
    /// A session-level lock inside the caller's transaction.
    AllowedInTransaction,
    /// A session-level lock in a test's transaction.
    InTestTransaction,
}

pub(crate) const CALLS: [Call; 11] = [
    Call::Acquire,
    Call::TryAcquire,
    Call::With,
    Call::WithFailing,
    Call::WithTransaction,
    Call::WithTransactionFailing,
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
    /// Somebody else has it.
    NotGranted,
    /// The body's own error.
    BodyFailed,
    Failed(LockErrorKind),
}

#[derive(Debug)]
enum CallError {
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

    /// Makes the call. `body` is run while the lock is thought to be held.
    pub(crate) fn make(
        self,
        session: &mut ModelSession,
        key: &LockKey,
        options: LockOptions,
        body: impl FnOnce(&mut ModelSession),
    ) -> Told {
        let succeed = |session: &mut ModelSession| {
            body(session);
            Ok::<_, CallError>(())
        };
        let told = match self {
            Self::Acquire | Self::InTestTransaction => {
                hold(session.acquire_advisory_lock(key, options), succeed)
            }
            Self::AllowedInTransaction => hold(
                session.acquire_advisory_lock(key, options.allow_in_transaction()),
                succeed,
            ),
            Self::TryAcquire => match session.try_acquire_advisory_lock(key, options) {
                Ok(None) => return Told::NotGranted,
                Ok(Some(guard)) => hold(Ok(guard), succeed),
                Err(error) => Err(error.into()),
            },
            Self::With => session.with_advisory_lock(key, options, succeed),
            Self::WithFailing => session.with_advisory_lock(key, options, |session| {
                succeed(session)?;
                Err(CallError::Body)
            }),
            Self::WithTransaction => session.with_advisory_xact_lock(key, options, succeed),
            Self::WithTransactionFailing => {
                session.with_advisory_xact_lock(key, options, |session| {
                    succeed(session)?;
                    Err(CallError::Body)
                })
            }
            Self::TryWithTransaction => {
                match session.try_with_advisory_xact_lock(key, options, succeed) {
                    Ok(None) => return Told::NotGranted,
                    Ok(Some(())) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Self::InTransaction => session
                .acquire_advisory_xact_lock(key, options)
                .map_err(CallError::from)
                .and_then(|()| succeed(session)),
            Self::TryInTransaction => match session.try_acquire_advisory_xact_lock(key, options) {
                Ok(false) => return Told::NotGranted,
                Ok(true) => succeed(session),
                Err(error) => Err(error.into()),
            },
        };
        match told {
            Ok(()) => Told::Held,
            Err(CallError::Body) => Told::BodyFailed,
            Err(CallError::Lock(error)) => match error.kind() {
                LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut => Told::NotGranted,
                kind => Told::Failed(kind),
            },
        }
    }
}

fn hold(
    guard: Result<advisory_locking::AdvisoryLockGuard<&mut ModelSession>, LockError>,
    body: impl FnOnce(&mut ModelSession) -> Result<(), CallError>,
) -> Result<(), CallError> {
    let mut guard = guard?;
    body(&mut guard)?;
    guard.release().map_err(CallError::from)
}
