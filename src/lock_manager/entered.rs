//! The context of a runtime, for sessions that calls from anywhere run.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A session that is run, and dropped, in its runtime's context: a call that runs it may be anywhere.
pub(super) struct Entered<F> {
    runtime: Handle,
    /// `None` only while it is dropped.
    session: Option<Pin<Box<F>>>,
}

impl<F> Entered<F> {
    pub(super) fn new(runtime: Handle, session: F) -> Self {
        let session = Some(Box::pin(session));
        Self { runtime, session }
    }
}

impl<F: Future<Output = ()>> Future for Entered<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { runtime, session } = &mut *self;
        let _entered = runtime.enter();
        match session {
            Some(session) => session.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}

impl<F> Drop for Entered<F> {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        drop(self.session.take());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use std::task::Waker;

    use tokio::runtime::{Builder, Handle};

    use super::*;

    fn where_it_is() -> Option<tokio::runtime::Id> {
        Handle::try_current().ok().map(|handle| handle.id())
    }

    struct TellsWhere(Arc<Mutex<Vec<Option<tokio::runtime::Id>>>>);

    impl Drop for TellsWhere {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(where_it_is());
        }
    }

    #[test]
    fn a_session_is_at_home_wherever_it_is_run_and_dropped() {
        let [home, elsewhere] = [(); 2].map(|()| Builder::new_current_thread().build().unwrap());
        let told = Arc::default();
        let dropped = TellsWhere(Arc::clone(&told));
        let seen = Arc::clone(&told);
        let session = poll_fn(move |_| {
            let _kept = &dropped;
            seen.lock().unwrap().push(where_it_is());
            Poll::Pending
        });
        let mut entered = Entered::new(home.handle().clone(), session);
        let mut poll = || {
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut entered).poll(&mut context).is_pending());
        };
        poll();
        assert_eq!(where_it_is(), None);
        let _there = elsewhere.enter();
        poll();
        assert_eq!(where_it_is(), Some(elsewhere.handle().id()));
        drop(entered);
        let runtime_bound = Some(home.handle().id());
        assert_eq!(*told.lock().unwrap(), [runtime_bound; 3]);
    }
}
