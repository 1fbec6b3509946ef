//! First poll of a future, which hands its message to the task or the buffer of a connection.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Starts to send a message, and does not wait for the reply.
///
/// The first poll of the future hands the message to the task that talks to the server. Returns
/// `false` if it fails at once, for example on a closed connection.
#[cfg(any(feature = "_diesel-async", feature = "tokio-postgres"))]
pub(crate) fn start<T, E>(message: impl Future<Output = Result<T, E>>) -> bool {
    !matches!(poll_once(message), Some(Err(_)))
}

/// Polls a future once. Returns `None` if it is pending.
pub(crate) fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
