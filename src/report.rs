//! What is logged, and which error a caller gets when two things went wrong.

use std::error::Error as StdError;

use crate::error::LockError;

/// Logs a release that failed where nobody can be told, with the chain of its causes.
pub(crate) fn release_failed(error: &LockError) {
    tracing::error!(
        error = error as &(dyn StdError + 'static),
        "an advisory lock was not released in order"
    );
}

/// The result of a body and of what ended its lock: the body's error wins, and a lock that was not held to the end is an error
/// also when the body succeeded.
pub(crate) fn settle<T, E: From<LockError>>(
    body: Result<T, E>,
    ended: Result<(), LockError>,
) -> Result<T, E> {
    match (body, ended) {
        (Ok(value), Ok(())) => Ok(value),
        (Ok(_), Err(error)) => Err(error.into()),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(release_error)) => {
            release_failed(&release_error);
            Err(error)
        }
    }
}
