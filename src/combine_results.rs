//! Combination of the body's result with the release's result.

use crate::error::LockError;
use crate::events::release_failed;

/// Combines the result of a body with the result of the release or commit. The error of the body
/// takes precedence; the error of the release is logged then. If the body succeeded, the error of
/// the release is returned.
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
