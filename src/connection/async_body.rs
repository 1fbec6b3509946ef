//! What an async body is.

/// An async closure whose future can be required to be `Send`.
///
/// Stable Rust cannot say that of `AsyncFnOnce` alone. Implemented for every async closure and function; diesel-async does the
/// same for its `transaction`. Write the closure `async |conn| { … }`: with `|conn| async move { … }`, the compiler says that the
/// "implementation of `AsyncFnOnce` is not general enough".
pub trait AsyncBody<Arg, Out>:
    AsyncFnOnce(Arg) -> Out + FnOnce(Arg) -> <Self as AsyncBody<Arg, Out>>::Fut
{
    /// The closure's future.
    type Fut: Future<Output = Out>;
}

impl<F, Arg, Fut, Out> AsyncBody<Arg, Out> for F
where
    F: AsyncFnOnce(Arg) -> Out + FnOnce(Arg) -> Fut,
    Fut: Future<Output = Out>,
{
    type Fut = Fut;
}
