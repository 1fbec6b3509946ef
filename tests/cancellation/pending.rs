//! Polling a future by hand.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Polls a future until it was pending `limit` times: `None` then, and the future goes on if it is polled again.
pub(crate) struct UntilPending<F> {
    future: F,
    limit: usize,
}

pub(crate) const fn until_pending<F>(limit: usize, future: F) -> UntilPending<F> {
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

/// Whether a call completed before it was dropped at its pending point `limit`.
pub(crate) async fn drop_at<F: Future>(limit: usize, future: F) -> Option<F::Output> {
    until_pending(limit, Box::pin(future)).await
}
