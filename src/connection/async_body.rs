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
