//! Stream of a connection, whose remaining items another task can move into memory.
//!
//! # Implementation details
//!
//! The rows of a statement arrive on the connection that the body uses, and the stream of these
//! rows keeps the connection. If the body runs another statement before it has read all rows, that
//! statement would wait for the stream, and the stream for the body. So that statement first reads
//! the remaining rows into a buffer, from which the stream continues.
//!
//! The source is behind a blocking mutex, which is locked for one poll at a time, and until the
//! item is in the buffer. Several tasks may poll it, and each may stop to poll at any time. So the
//! socket wakes all of them, and so does each one that makes progress. A new stream wakes the tasks
//! that already wait for the connection, because they must read it.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::{BoxStream, Stream, StreamExt};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Stream of a connection that is open now, if there is one.
pub(super) struct OpenStream<T> {
    source: Mutex<Option<Source<T>>>,
    waiting: Arc<WaitingTasks>,
}

/// Source of the items, and the buffer of their reader.
type Source<T> = (BoxStream<'static, T>, UnboundedSender<T>);

/// Tasks whose last poll was pending.
#[derive(Default)]
struct WaitingTasks(Mutex<Vec<Waker>>);

/// Reader of one stream, which outlives the stream if other tasks have read its items.
#[derive(Debug)]
pub(super) struct StreamReader<T> {
    open: Arc<OpenStream<T>>,
    /// Items that other tasks have read. They come before those that the source still has.
    buffer: UnboundedReceiver<T>,
}

impl<T> OpenStream<T> {
    pub(super) fn new() -> Self {
        Self {
            source: Mutex::new(None),
            waiting: Arc::default(),
        }
    }

    /// Opens a stream. The previous one has ended.
    pub(super) fn start(self: &Arc<Self>, source: BoxStream<'static, T>) -> StreamReader<T> {
        let (sender, buffer) = unbounded_channel();
        *lock(&self.source) = Some((source, sender));
        self.waiting.wake_by_ref();
        let open = Arc::clone(self);
        StreamReader { open, buffer }
    }

    /// Awaits a future. Meanwhile, it moves the remaining items of each stream into the buffer.
    pub(super) async fn buffer_until<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                self.buffer_rest(context);
            }
            polled
        })
        .await
    }

    fn buffer_rest(&self, context: &mut Context<'_>) {
        let mut source = lock(&self.source);
        let mut woken = Vec::new();
        while let Poll::Ready(item) = self.poll_source(&mut source, context) {
            woken.extend(self.waiting.take());
            if let (Some(item), Some((_, buffer))) = (item, &*source) {
                // The reader may have been leaked or be in its drop.
                let _ = buffer.send(item);
            }
        }
        drop(source);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Polls the source, and removes it after its end. Pending if there is none.
    fn poll_source(
        &self,
        source: &mut Option<Source<T>>,
        context: &mut Context<'_>,
    ) -> Poll<Option<T>> {
        let waker = Waker::from(Arc::clone(&self.waiting));
        let mut poll = || match source {
            Some((items, _)) => items.poll_next_unpin(&mut Context::from_waker(&waker)),
            None => Poll::Pending,
        };
        let mut polled = poll();
        if polled.is_pending() {
            self.waiting.add(context.waker());
            // The socket may have woken the tasks just before this one was added.
            polled = poll();
        }
        if matches!(polled, Poll::Ready(None)) {
            *source = None;
        }
        polled
    }

    /// Ends the stream with this item, after the buffered ones. Returns `false` if none is open.
    pub(super) fn end_with(&self, last: T) -> bool {
        let source = lock(&self.source).take();
        let Some((source, buffer)) = source else {
            return false;
        };
        let _ = buffer.send(last);
        // Outside the lock: it frees the connection and wakes the task that waits for that.
        drop((source, buffer));
        self.waiting.wake_by_ref();
        true
    }
}

impl WaitingTasks {
    fn add(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn take(&self) -> Vec<Waker> {
        mem::take(&mut *lock(&self.0))
    }
}

impl Wake for WaitingTasks {
    fn wake(self: Arc<Self>) {
        self.take().into_iter().for_each(Waker::wake);
    }
}

impl<T> Stream for StreamReader<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Self { open, buffer } = &mut *self;
        let mut source = lock(&open.source);
        match buffer.try_recv() {
            Ok(item) => Poll::Ready(Some(item)),
            // The source of this stream is gone.
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => {
                let polled = open.poll_source(&mut source, context);
                drop(source);
                if polled.is_ready() {
                    open.waiting.wake_by_ref();
                }
                polled
            }
        }
    }
}

impl<T> Drop for StreamReader<T> {
    fn drop(&mut self) {
        self.buffer.close();
        let is_unread = |(_, buffer): &mut Source<T>| buffer.is_closed();
        let unread = lock(&self.open.source).take_if(is_unread);
        // Outside the lock, as in `end_with`. The next user of the connection reads the rest of the
        // reply.
        drop(unread);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A source that panicked is polled again, and is responsible for that.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> fmt::Debug for OpenStream<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OpenStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::pending;
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

    type Items = Arc<Mutex<VecDeque<u8>>>;

    /// Stream that yields what is pushed into the queue, and its end after the item 0.
    fn source(items: &Items) -> BoxStream<'static, u8> {
        let items = Arc::clone(items);
        let source = stream::poll_fn(move |_| match items.lock().unwrap().pop_front() {
            None => Poll::Pending,
            Some(0) => Poll::Ready(None),
            Some(item) => Poll::Ready(Some(item)),
        });
        source.boxed()
    }

    /// Connection with an open stream, and its reader.
    fn open(items: &Items) -> (Arc<OpenStream<u8>>, StreamReader<u8>) {
        let open = Arc::new(OpenStream::new());
        let reader = open.start(source(items));
        (open, reader)
    }

    fn items(items: impl Into<VecDeque<u8>>) -> Items {
        Arc::new(Mutex::new(items.into()))
    }

    /// Moves the items that have arrived into the buffer.
    fn buffer(open: &OpenStream<u8>) {
        open.buffer_rest(&mut Context::from_waker(Waker::noop()));
    }

    #[test]
    fn buffered_items_are_read_in_order() {
        let (open, mut reader) = open(&items([1, 2, 3, 0]));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(reader.poll_next_unpin(&mut context), Poll::Ready(Some(1)));
        buffer(&open);
        for item in [Some(2), Some(3), None, None] {
            assert_eq!(reader.poll_next_unpin(&mut context), Poll::Ready(item));
        }
    }

    #[test]
    fn progress_wakes_the_other_task() {
        let items = items([]);
        let (stream, mut rows) = open(&items);
        let [reader, other] = [(); 2].map(|()| Arc::new(WakeCount::default()));
        let (reader_waker, other_waker) = (Arc::clone(&reader).into(), Arc::clone(&other).into());
        let mut reader_context = Context::from_waker(&reader_waker);
        let mut other_context = Context::from_waker(&other_waker);

        let mut waiting = Box::pin(stream.buffer_until(pending::<()>()));
        assert!(waiting.as_mut().poll(&mut other_context).is_pending());
        assert!(rows.poll_next_unpin(&mut reader_context).is_pending());
        // The reader makes progress, and may never poll again.
        items.lock().unwrap().push_back(1);
        assert_eq!(
            rows.poll_next_unpin(&mut reader_context),
            Poll::Ready(Some(1))
        );
        assert_eq!(other.get(), 1);

        // The other task reaches the end.
        assert!(rows.poll_next_unpin(&mut reader_context).is_pending());
        items.lock().unwrap().extend([2, 0]);
        let before = reader.get();
        assert!(waiting.as_mut().poll(&mut other_context).is_pending());
        assert!(reader.get() > before);
        for item in [Some(2), None] {
            assert_eq!(rows.poll_next_unpin(&mut reader_context), Poll::Ready(item));
        }
    }

    /// A task that is neither polled nor dropped awaits another one, which polls the stream.
    #[test]
    fn socket_wakes_the_reader_and_every_waiting_task() {
        let (socket, mut received) = unbounded_channel();
        let stream = Arc::new(OpenStream::new());
        let source = stream::poll_fn(move |context| received.poll_recv(context));
        let mut reader = stream.start(source.boxed());
        let wakes = [(); 3].map(|()| Arc::new(WakeCount::default()));
        let [first, second] = [(); 2].map(|()| Box::pin(stream.buffer_until(pending::<()>())));
        let (mut first, mut second) = (first, Some(second));
        let mut sent = Vec::new();
        for last in [0, 1, 2, 3] {
            // Each task is the last to poll once. Then one of them is dropped.
            for task in (last..last + 3).map(|task| task % 3) {
                let waker = Arc::clone(&wakes[task]).into();
                let mut context = Context::from_waker(&waker);
                match task {
                    0 => assert!(first.as_mut().poll(&mut context).is_pending()),
                    1 => {
                        let waiting = second.as_mut().map(|second| second.as_mut());
                        assert!(
                            waiting.is_none_or(|second| second.poll(&mut context).is_pending())
                        );
                    }
                    _ => {
                        for item in sent.drain(..) {
                            assert_eq!(
                                reader.poll_next_unpin(&mut context),
                                Poll::Ready(Some(item))
                            );
                        }
                        assert!(reader.poll_next_unpin(&mut context).is_pending());
                    }
                }
            }
            if last == 2 {
                second = None;
            }
            let before = wakes.each_ref().map(|wakes| wakes.get());
            socket.send(last).unwrap();
            sent.push(last);
            for task in [0, 1, 2] {
                let woken = wakes[task].get() > before[task];
                assert!(woken || (task, last) == (1, 3), "task {task}, item {last}");
            }
        }
    }

    /// The task has waited for the connection since before the stream.
    #[test]
    fn waiting_task_is_woken_by_a_new_stream() {
        let stream = Arc::new(OpenStream::new());
        let wakes = Arc::new(WakeCount::default());
        let waker = Arc::clone(&wakes).into();
        let mut context = Context::from_waker(&waker);
        let mut waiting = Box::pin(stream.buffer_until(pending::<()>()));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let mut reader = stream.start(source(&items([1, 0])));
        assert_eq!(wakes.get(), 1);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(waiting);
        // The next stream is another one.
        let mut next = stream.start(source(&items([2, 0])));
        buffer(&stream);
        for (reader, item) in [(&mut reader, 1), (&mut next, 2)] {
            let mut context = Context::from_waker(Waker::noop());
            for item in [Some(item), None] {
                assert_eq!(reader.poll_next_unpin(&mut context), Poll::Ready(item));
            }
        }
    }

    #[test]
    fn ended_stream_yields_its_last_item_after_the_buffer() {
        let (open, mut reader) = open(&items([1, 2]));
        let mut context = Context::from_waker(Waker::noop());
        buffer(&open);
        assert!(open.end_with(9));
        assert!(!open.end_with(10), "it has ended");
        for item in [Some(1), Some(2), Some(9), None] {
            assert_eq!(reader.poll_next_unpin(&mut context), Poll::Ready(item));
        }
    }

    /// The source keeps the connection.
    #[test]
    fn dropped_reader_drops_its_source_only() {
        let (open, reader) = open(&items([1]));
        drop(reader);
        assert!(lock(&open.source).is_none());
        let old = open.start(source(&items([0])));
        buffer(&open);
        let _new = open.start(source(&items([2])));
        drop(old);
        assert!(lock(&open.source).is_some(), "that of the next stream");
    }

    /// Reads the stream as soon as it is woken, before the waking task goes on.
    struct ReadWhenWoken {
        reader: Mutex<StreamReader<u8>>,
        read: Mutex<Vec<Option<u8>>>,
    }

    impl Wake for ReadWhenWoken {
        fn wake(self: Arc<Self>) {
            let mut context = Context::from_waker(Waker::noop());
            let mut reader = self.reader.lock().unwrap();
            while let Poll::Ready(item) = reader.poll_next_unpin(&mut context) {
                self.read.lock().unwrap().push(item);
                if item.is_none() {
                    return;
                }
            }
        }
    }

    /// The other task moves an item into the buffer. A reader on another thread may be at any
    /// point.
    #[test]
    fn reader_that_runs_beside_another_task_reads_every_item() {
        let items = items([]);
        let (open, reader) = open(&items);
        let reader = Arc::new(ReadWhenWoken {
            reader: Mutex::new(reader),
            read: Mutex::default(),
        });
        let waker = Arc::clone(&reader).into();
        let mut context = Context::from_waker(&waker);
        let polled = reader.reader.lock().unwrap().poll_next_unpin(&mut context);
        assert!(polled.is_pending());
        items.lock().unwrap().extend([1, 2, 0]);
        buffer(&open);
        assert_eq!(*reader.read.lock().unwrap(), [Some(1), Some(2), None]);
    }
}
