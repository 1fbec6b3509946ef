//! Async closures that run under a lock.

/// Async closure whose future can be required to be `Send`.
///
/// Stable Rust cannot name the future of an `AsyncFnOnce`. This trait does, as diesel-async does
/// for its `transaction`. Every async closure and async function implements it. Write the closure
/// as `async |conn| { … }`. For `|conn| async move { … }` the compiler reports that the
/// "implementation of `AsyncFnOnce` is not general enough".
pub trait AsyncBody<Arg, Out>:
    AsyncFnOnce(Arg) -> Out + FnOnce(Arg) -> <Self as AsyncBody<Arg, Out>>::Fut
{
    /// Future that the closure returns.
    type Fut: Future<Output = Out>;
}

impl<F, Arg, Fut, Out> AsyncBody<Arg, Out> for F
where
    F: AsyncFnOnce(Arg) -> Out + FnOnce(Arg) -> Fut,
    Fut: Future<Output = Out>,
{
    type Fut = Fut;
}

/// Body of a lock method: an async closure that borrows the connection, with a `Send` future.
///
/// Abbreviates the bounds of the async traits. Every closure `async |conn| { … }` implements it if
/// its captures and its future are `Send`.
///
/// # Examples
///
/// A function of an application, which adds its own key and options to every lock:
///
/// ```
/// use std::time::Duration;
/// use advisory_locking::session::AsyncLockBody;
/// use advisory_locking::{AsyncPooledAdvisoryLocking, LockError, LockOptions};
///
/// const TURN: LockOptions = LockOptions::wait_up_to(Duration::from_secs(10));
///
/// /// Returns `None` if another session works for this tenant for ten seconds.
/// async fn for_tenant<P, T, E, F>(pool: &P, tenant: i64, body: F) -> Result<Option<T>, E>
/// where
///     P: AsyncPooledAdvisoryLocking,
///     F: AsyncLockBody<P::Session, T, E>,
///     E: From<LockError> + Send,
///     T: Send,
/// {
///     pool.try_with_advisory_lock(("tenant", tenant), TURN, body).await
/// }
/// ```
pub trait AsyncLockBody<S, T, E>:
    for<'r> AsyncFnOnce(&'r mut S) -> Result<T, E>
    + for<'r> AsyncBody<&'r mut S, Result<T, E>, Fut: Send>
    + Send
{
}

impl<F, S, T, E> AsyncLockBody<S, T, E> for F where
    F: for<'r> AsyncFnOnce(&'r mut S) -> Result<T, E>
        + for<'r> AsyncBody<&'r mut S, Result<T, E>, Fut: Send>
        + Send
{
}
