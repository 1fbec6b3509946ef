//! Futures that are dropped at a pending point.

use std::pin::Pin;
use std::task::{Context, Poll};

/// Polls a future until it has been pending `limit` times. Its output is `None` then, and the
/// inner future can be polled again.
#[derive(Debug)]
pub struct UntilPending<F> {
    future: F,
    limit: usize,
}

pub const fn until_pending<F>(limit: usize, future: F) -> UntilPending<F> {
    UntilPending { future, limit }
}

impl<F: Future + Unpin> Future for UntilPending<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.limit == 0 {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.future).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                self.limit -= 1;
                if self.limit == 0 {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                }
            }
        }
    }
}

/// Polls a call, and drops it at its pending point `limit`. Returns its output if it was ready
/// before.
pub async fn drop_at<F: Future>(limit: usize, future: F) -> Option<F::Output> {
    until_pending(limit, Box::pin(future)).await
}
