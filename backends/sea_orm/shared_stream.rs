//! Stream whose remaining items another task can move into memory.
//!
//! # Implementation details
//!
//! The rows of a statement arrive on the connection that the body uses, and the stream of these
//! rows keeps the connection. If the body runs another statement before it has read all rows, that
//! statement would wait for the stream, and the stream for the body. So that statement first reads
//! the remaining rows into a buffer, from which the stream continues.
//!
//! The source is behind a blocking mutex, which is locked for one poll at a time. Several tasks may
//! poll it. Only the last of them is registered with the socket, so each one that makes progress,
//! or stops to poll, wakes the others.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

/// Stream with a buffer. One task reads it, and others may [buffer](Self::buffer_rest) the rest.
pub(super) struct SharedStream<T>(Mutex<Inner<T>>);

struct Inner<T> {
    /// `None` after its end.
    source: Option<BoxStream<'static, T>>,
    buffer: VecDeque<T>,
    /// Tasks whose last poll was pending.
    wakers: Vec<Waker>,
}

impl<T: Send> SharedStream<T> {
    pub(super) fn new(source: BoxStream<'static, T>) -> Self {
        Self(Mutex::new(Inner {
            source: Some(source),
            buffer: VecDeque::new(),
            wakers: Vec::new(),
        }))
    }

    /// Returns the next item, from the buffer if it has one.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut inner = self.lock();
        // The rows of the buffer come before the rows that the source still has.
        match inner.buffer.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None => self.poll_source(inner, context),
        }
    }

    /// Reads the remaining items into the buffer, and drops the source.
    pub(super) async fn buffer_rest(&self) {
        // If this future is dropped, another task must register with the socket.
        let _wake = scopeguard::guard(self, Self::wake_all);
        poll_fn(|context| {
            loop {
                match self.poll_source(self.lock(), context) {
                    Poll::Ready(Some(item)) => self.lock().buffer.push_back(item),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    /// Drops the source. The stream ends with this item, if there is one, after the buffered ones.
    ///
    /// Returns `false` if it had ended.
    pub(super) fn end(&self, last: Option<T>) -> bool {
        let mut inner = self.lock();
        let source = inner.source.take();
        let ends = source.is_some();
        if ends {
            inner.buffer.extend(last);
        }
        drop(inner);
        // Outside the lock: it frees the connection and wakes the task that waits for that.
        drop(source);
        self.wake_all();
        ends
    }

    fn poll_source(
        &self,
        mut inner: MutexGuard<'_, Inner<T>>,
        context: &mut Context<'_>,
    ) -> Poll<Option<T>> {
        let Some(source) = &mut inner.source else {
            return Poll::Ready(None);
        };
        let polled = source.poll_next_unpin(context);
        match &polled {
            Poll::Pending => {
                let waker = context.waker();
                if !inner.wakers.iter().any(|known| known.will_wake(waker)) {
                    inner.wakers.push(waker.clone());
                }
            }
            Poll::Ready(Some(_)) => {
                drop(inner);
                self.wake_all();
            }
            Poll::Ready(None) => {
                drop(inner);
                self.end(None);
            }
        }
        polled
    }

    fn wake_all(&self) {
        let wakers = std::mem::take(&mut self.lock().wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // A source that panicked is polled again, and is responsible for that.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for SharedStream<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SharedStream")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures_util::stream;

    use super::*;

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl WakeCount {
        fn get(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// Stream that yields what is pushed into the queue, and its end after the item 0.
    fn shared(items: &Arc<Mutex<VecDeque<u8>>>) -> SharedStream<u8> {
        let items = Arc::clone(items);
        let source = stream::poll_fn(move |_| match items.lock().unwrap().pop_front() {
            None => Poll::Pending,
            Some(0) => Poll::Ready(None),
            Some(item) => Poll::Ready(Some(item)),
        });
        SharedStream::new(source.boxed())
    }

    #[test]
    fn buffered_items_are_read_in_order() {
        let items = Arc::new(Mutex::new(VecDeque::from([1, 2, 3, 0])));
        let stream = shared(&items);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(stream.poll_next(&mut context), Poll::Ready(Some(1)));
        let mut rest = pin!(stream.buffer_rest());
        assert!(rest.as_mut().poll(&mut context).is_ready());
        for item in [Some(2), Some(3), None, None] {
            assert_eq!(stream.poll_next(&mut context), Poll::Ready(item));
        }
    }

    /// The socket knows the task that polled last, so each progress must wake the others.
    #[test]
    fn progress_and_drop_wake_the_other_task() {
        let items = Arc::new(Mutex::new(VecDeque::new()));
        let stream = shared(&items);
        let (reader, other) = (
            Arc::new(WakeCount::default()),
            Arc::new(WakeCount::default()),
        );
        let (reader_waker, other_waker) = (Arc::clone(&reader).into(), Arc::clone(&other).into());
        let mut reader_context = Context::from_waker(&reader_waker);
        let mut other_context = Context::from_waker(&other_waker);

        let mut rest = Box::pin(stream.buffer_rest());
        assert!(rest.as_mut().poll(&mut other_context).is_pending());
        assert!(stream.poll_next(&mut reader_context).is_pending());
        // The reader makes progress, and may never poll again.
        items.lock().unwrap().push_back(1);
        assert_eq!(stream.poll_next(&mut reader_context), Poll::Ready(Some(1)));
        assert_eq!(other.get(), 1);

        // The other task is dropped, and the reader must register again.
        assert!(stream.poll_next(&mut reader_context).is_pending());
        assert!(rest.as_mut().poll(&mut other_context).is_pending());
        let before = reader.get();
        drop(rest);
        assert_eq!(reader.get(), before + 1);

        // The other task reaches the end.
        assert!(stream.poll_next(&mut reader_context).is_pending());
        items.lock().unwrap().extend([2, 0]);
        let mut rest = Box::pin(stream.buffer_rest());
        let before = reader.get();
        assert!(rest.as_mut().poll(&mut other_context).is_ready());
        assert!(reader.get() > before);
        assert_eq!(stream.poll_next(&mut reader_context), Poll::Ready(Some(2)));
        assert_eq!(stream.poll_next(&mut reader_context), Poll::Ready(None));
    }

    #[test]
    fn ended_stream_yields_its_last_item_after_the_buffer() {
        let items = Arc::new(Mutex::new(VecDeque::from([1, 2])));
        let stream = shared(&items);
        let mut context = Context::from_waker(Waker::noop());
        let mut rest = Box::pin(stream.buffer_rest());
        assert!(rest.as_mut().poll(&mut context).is_pending());
        assert!(stream.end(Some(9)));
        assert!(!stream.end(Some(10)), "it has ended");
        for item in [Some(1), Some(2), Some(9), None] {
            assert_eq!(stream.poll_next(&mut context), Poll::Ready(item));
        }
        assert!(rest.as_mut().poll(&mut context).is_ready());
    }
}
