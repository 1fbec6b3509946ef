//! Values that must be dropped, or polled, in the tokio runtime that they came from.
//!
//! The drop of a pooled connection spawns a task, and a session's future uses the timers and the
//! I/O driver of its runtime. Both panic on a thread that is in no runtime, for example after
//! `block_on` has returned.
//!
//! # Implementation details
//!
//! The value is kept with the [`Handle`] of its runtime. Every drop and every poll first
//! [enters](Handle::enter) that runtime, which sets a thread-local variable and does not block. If
//! the runtime has shut down, tokio drops the spawned task, and with it what the task owns.
//!
//! In a destructor of a thread-local variable, tokio's variables may be destroyed already, and
//! `enter` panics. Then a thread of its own drops the value, and a poll only wakes the task.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use scopeguard::ScopeGuard;
use tokio::runtime::Handle;

/// A value that is dropped in the tokio runtime it came from, on whatever thread it is dropped.
///
/// The pools of bb8, deadpool, mobc and sqlx's `SqlitePool` hand out their connections in it. The
/// drop of such a connection may spawn a task, which panics on a thread without a runtime:
///
/// | pool | task | after the runtime has shut down |
/// |---|---|---|
/// | mobc, sqlx | returns the connection | The connection is closed. |
/// | bb8 | replaces a broken connection | The connection is not replaced. |
/// | deadpool | none | The connection returns to the pool. |
///
/// A future in a `RuntimeBound` is polled in that runtime, too.
#[must_use = "a pooled connection returns to its pool when it is dropped"]
pub struct RuntimeBound<T>(ScopeGuard<Parts<T>, fn(Parts<T>)>);

struct Parts<T> {
    value: T,
    runtime: Option<Handle>,
    on_drop: fn(T),
}

impl<T: Send> RuntimeBound<T> {
    /// Binds `value` to `runtime`, in which `on_drop` will consume it.
    ///
    /// Without a runtime, the value is dropped where the drop happens.
    pub(crate) fn new(value: T, runtime: Option<Handle>, on_drop: fn(T)) -> Self {
        // A guard of `scopeguard` allows `into_inner`. A type that implements `Drop` itself cannot
        // move its value out.
        let parts = Parts {
            value,
            runtime,
            on_drop,
        };
        Self(scopeguard::guard(parts, Parts::drop_in_runtime))
    }

    /// Binds `value` to the current runtime, if there is one, as [`new`](Self::new) does.
    #[cfg(any(
        feature = "bb8",
        feature = "mobc",
        feature = "_sqlx-postgres",
        feature = "sqlx-sqlite"
    ))]
    pub(crate) fn current(value: T, on_drop: fn(T)) -> Self {
        Self::new(value, Handle::try_current().ok(), on_drop)
    }

    /// Returns the value itself, where [`Deref`] goes one step further.
    #[cfg(feature = "_sqlx-postgres")]
    pub(crate) fn get_ref(&self) -> &T {
        &self.0.value
    }

    /// Returns the value itself, where [`DerefMut`] goes one step further.
    #[cfg(feature = "sqlx-postgres")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.0.value
    }

    /// Returns the handle of the value's runtime.
    #[cfg(feature = "_sqlx-postgres")]
    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.0.runtime.as_ref()
    }

    /// Unbinds the value.
    #[cfg(feature = "sea-orm")]
    pub(crate) fn into_inner(self) -> T {
        ScopeGuard::into_inner(self.0).value
    }

    /// Drops the value in its runtime with `on_drop`, which replaces that of [`new`](Self::new).
    #[cfg(feature = "sea-orm")]
    pub(crate) fn drop_with(mut self, on_drop: fn(T)) {
        self.0.on_drop = on_drop;
    }
}

impl<T: Send> Parts<T> {
    fn drop_in_runtime(self) {
        if self.runtime.is_none() || !is_context_destroyed() {
            return self.drop_here();
        }
        // The drop may spawn a task, which panics outside a runtime.
        let mut parts = Some(self);
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("advisory-locking".to_owned());
            let dropping = thread.spawn_scoped(scope, || parts.take().map(Self::drop_here));
            if let Ok(dropping) = dropping {
                // Its panic would abort the process here.
                let _ = dropping.join();
            }
        });
        // No thread started.
        if let Some(Self { value, on_drop, .. }) = parts {
            on_drop(value);
        }
    }

    fn drop_here(self) {
        // Entered for the whole call: `on_drop` may spawn a task.
        let _entered = self.runtime.as_ref().map(Handle::enter);
        (self.on_drop)(self.value);
    }
}

/// Returns whether tokio's thread-local variables are destroyed, because this thread ends.
fn is_context_destroyed() -> bool {
    Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed())
}

impl<T: Deref> Deref for RuntimeBound<T> {
    type Target = T::Target;

    fn deref(&self) -> &Self::Target {
        &self.0.value
    }
}

impl<T: DerefMut> DerefMut for RuntimeBound<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0.value
    }
}

impl<F: Future + Unpin> Future for RuntimeBound<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Parts { value, runtime, .. } = &mut *self.get_mut().0;
        if runtime.is_some() && is_context_destroyed() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let _entered = runtime.as_ref().map(Handle::enter);
        Pin::new(value).poll(context)
    }
}

impl<T> fmt::Debug for RuntimeBound<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RuntimeBound")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{Ready, poll_fn, ready};
    use std::sync::{Arc, Mutex};
    use std::task::{Wake, Waker};

    use tokio::runtime::{Builder, Id};

    use super::*;

    fn current_runtime_id() -> Option<Id> {
        Handle::try_current().ok().map(|handle| handle.id())
    }

    /// Records in which runtime it is dropped.
    struct RuntimeIdRecorder(Arc<Mutex<Vec<Option<Id>>>>);

    impl Drop for RuntimeIdRecorder {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(current_runtime_id());
        }
    }

    #[test]
    fn future_is_polled_and_dropped_in_its_runtime() {
        let [own, other] = [(); 2].map(|()| Builder::new_current_thread().build().unwrap());
        let recorded = Arc::default();
        let recorder = RuntimeIdRecorder(Arc::clone(&recorded));
        let polled = Arc::clone(&recorded);
        let future = poll_fn(move |_| {
            let _moved_in = &recorder;
            polled.lock().unwrap().push(current_runtime_id());
            Poll::<()>::Pending
        });
        let own_runtime = Some(own.handle().clone());
        let mut bound = RuntimeBound::new(Box::pin(future), own_runtime, drop);
        #[cfg(feature = "_sqlx-postgres")]
        assert_eq!(bound.runtime().map(Handle::id), Some(own.handle().id()));
        let mut poll = || {
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut bound).poll(&mut context).is_pending());
        };
        poll();
        assert_eq!(current_runtime_id(), None);
        let _entered = other.enter();
        poll();
        assert_eq!(current_runtime_id(), Some(other.handle().id()));
        drop(bound);
        assert_eq!(*recorded.lock().unwrap(), [Some(own.handle().id()); 3]);
    }

    /// Runs a destructor of a thread-local variable that is older than tokio's, which are destroyed
    /// first.
    fn drop_at_the_end_of_a_thread(value: impl Send + 'static) {
        thread_local! {
            static DROPPED_LAST: RefCell<Option<Box<dyn Send>>> = const { RefCell::new(None) };
        }
        let ends = thread::spawn(move || {
            DROPPED_LAST.set(None);
            assert_eq!(current_runtime_id(), None);
            DROPPED_LAST.set(Some(Box::new(value)));
        });
        ends.join().unwrap();
    }

    #[test]
    fn value_of_a_thread_is_dropped_in_its_runtime() {
        let own = Builder::new_current_thread().build().unwrap();
        let recorded = Arc::default();
        let recorder = RuntimeIdRecorder(Arc::clone(&recorded));
        let runtime = Some(own.handle().clone());
        drop_at_the_end_of_a_thread(RuntimeBound::new(recorder, runtime, drop));
        assert_eq!(*recorded.lock().unwrap(), [Some(own.handle().id())]);
    }

    #[derive(Default)]
    struct Polled {
        is_pending: Mutex<Option<bool>>,
        wakes: Mutex<u32>,
    }

    impl Wake for Polled {
        fn wake(self: Arc<Self>) {
            *self.wakes.lock().unwrap() += 1;
        }
    }

    struct PolledWhenDropped(RuntimeBound<Ready<()>>, Arc<Polled>);

    impl Drop for PolledWhenDropped {
        fn drop(&mut self) {
            let waker = Waker::from(Arc::clone(&self.1));
            let polled = Pin::new(&mut self.0).poll(&mut Context::from_waker(&waker));
            *self.1.is_pending.lock().unwrap() = Some(polled.is_pending());
        }
    }

    #[test]
    fn poll_at_the_end_of_a_thread_wakes_the_task() {
        let own = Builder::new_current_thread().build().unwrap();
        let bound = RuntimeBound::new(ready(()), Some(own.handle().clone()), drop);
        let polled = Arc::default();
        drop_at_the_end_of_a_thread(PolledWhenDropped(bound, Arc::clone(&polled)));
        assert_eq!(*polled.is_pending.lock().unwrap(), Some(true));
        assert_eq!(*polled.wakes.lock().unwrap(), 1);
    }
}
