//! Precedence of two errors: the body's and the release's.

use crate::error::LockError;
use crate::events::release_failed;

/// The result of a body and of what ended its lock: the body's error wins, and a lock that was not held to the end is an error
/// also when the body succeeded.
pub(crate) fn combine_results<T, E: From<LockError>>(
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
