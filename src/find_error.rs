//! [`LockError::find`], which looks into the errors of every enabled client library.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use crate::error::{LockError, downcast};

impl LockError {
    /// Finds the lock error in an error of a client library or of the application.
    ///
    /// It follows [`source`](StdError::source), and looks into the errors that hide a cause from
    /// that chain: Diesel's and SeaORM's, [`io::Error`], and a box or an [`Arc`] of one of them or
    /// of a `LockError`.
    ///
    /// These errors contain no `LockError`:
    ///
    /// * A failed commit arrives as the client's own error; see [the type](Self).
    /// * SeaORM's `TransactionError` of an error type of the application hides both. Match on it.
    /// * A variant of the application that forwards `source`, such as `#[error(transparent)]` of
    ///   `thiserror`, hides the `LockError` that it consists of. Match on that variant.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::error::Error;
    /// use advisory_locking::{LockError, LockErrorKind};
    ///
    /// /// Also for the `&*error` of an `anyhow::Error`.
    /// fn status(error: &(dyn Error + 'static)) -> u16 {
    ///     match LockError::find(error).map(LockError::kind) {
    ///         Some(LockErrorKind::HeldElsewhere) => 409,
    ///         Some(LockErrorKind::TimedOut | LockErrorKind::Pool) => 503,
    ///         _ => 500,
    ///     }
    /// }
    ///
    /// let error = LockError::new(LockErrorKind::TimedOut);
    /// assert_eq!(status(&std::io::Error::other(error)), 503);
    /// # #[cfg(feature = "diesel-sqlite")] {
    /// let error = LockError::new(LockErrorKind::Pool);
    /// assert_eq!(status(&diesel::result::Error::from(error)), 503);
    /// # }
    /// ```
    #[must_use]
    pub fn find<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = downcast(error) {
                return Some(found);
            }
            next = hidden_cause(error).or_else(|| error.source());
        }
        None
    }
}

/// Returns the cause that `source` leaves out.
fn hidden_cause<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
    #[cfg(feature = "_diesel")]
    if let Some(cause) = crate::backends::diesel::hidden_cause(error) {
        return Some(cause);
    }
    #[cfg(feature = "sea-orm")]
    if let Some(cause) = crate::backends::sea_orm::hidden_cause(error) {
        return Some(cause);
    }
    // The source of an error of SeaORM is a shared error, not the error that is shared.
    if let Some(shared) = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        return Some(&**shared);
    }
    // The source of an `io::Error` is that of the error in it, and leaves out the error itself.
    let cause = downcast::<io::Error>(error)?.get_ref()?;
    Some(cause)
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::error::LockErrorKind;

    fn lock_error() -> LockError {
        LockError::new(LockErrorKind::TimedOut)
    }

    #[track_caller]
    fn assert_found(error: impl StdError + 'static) {
        let found = LockError::find(&error).map(LockError::kind);
        assert_eq!(found, Some(LockErrorKind::TimedOut), "{error:?}");
    }

    /// An error of an application.
    #[derive(Debug)]
    struct Caused(Box<dyn StdError + Send + Sync>);

    impl fmt::Display for Caused {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("caused")
        }
    }

    impl StdError for Caused {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn lock_error_is_found_in_every_wrapper() {
        assert_found(lock_error());
        assert_found(Box::new(lock_error()));
        assert_found(Arc::new(lock_error()));
        assert_found(Caused(Box::new(lock_error())));
        assert_found(Caused(Box::new(Caused(Box::new(lock_error())))));
        assert_found(io::Error::other(lock_error()));
        assert_found(Caused(Box::new(io::Error::other(Arc::new(lock_error())))));
        assert_found(Arc::new(io::Error::other(lock_error())));
        assert_found(Box::new(io::Error::other(lock_error())));
        // Its source may be a lock error too; the outer one is found.
        assert_found(lock_error().with_source(LockError::new(LockErrorKind::Pool)));
    }

    #[test]
    fn other_errors_contain_no_lock_error() {
        for error in [
            Caused(Box::new(fmt::Error)),
            Caused(Box::new(io::Error::other("text"))),
            Caused(Box::new(io::Error::from(io::ErrorKind::NotFound))),
        ] {
            assert!(LockError::find(&error).is_none(), "{error:?}");
        }
    }

    #[cfg(feature = "_diesel")]
    #[test]
    fn lock_error_is_found_in_diesels_errors() {
        use diesel::result::Error;

        assert_found(Error::from(lock_error()));
        assert_found(Error::SerializationError(Box::new(lock_error())));
        assert_found(Error::DeserializationError(Box::new(lock_error())));
        assert_found(Caused(Box::new(Error::from(lock_error()))));
        assert_found(Arc::new(Error::from(lock_error())));
        assert_found(Box::new(Error::from(lock_error())));
        // A body's error that was converted twice.
        assert_found(Error::QueryBuilderError(Box::new(Caused(Box::new(
            lock_error(),
        )))));
        assert!(LockError::find(&Error::NotFound).is_none());
    }

    #[cfg(feature = "sea-orm")]
    #[test]
    fn lock_error_is_found_in_sea_orms_errors() {
        use sea_orm::{DbErr, TransactionError};

        assert_found(DbErr::from(lock_error()));
        assert_found(TransactionError::<LockError>::Connection(
            lock_error().into(),
        ));
        assert_found(TransactionError::Transaction(lock_error()));
        assert_found(TransactionError::Transaction(DbErr::from(lock_error())));
        assert_found(Arc::new(DbErr::from(lock_error())));
        assert_found(Box::new(TransactionError::Transaction(lock_error())));
        assert!(LockError::find(&DbErr::RecordNotInserted).is_none());
    }

    #[cfg(feature = "rusqlite")]
    #[test]
    fn lock_error_is_found_in_rusqlites_error() {
        assert_found(rusqlite::Error::from(lock_error()));
        assert!(LockError::find(&rusqlite::Error::InvalidQuery).is_none());
    }
}
