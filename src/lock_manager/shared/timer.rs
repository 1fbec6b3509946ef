//! The timer task of a lock manager: [`Shared::run_timer`].

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use futures_timer::Delay;

use super::{Shared, State};
use crate::lock_manager::request::Handle;

impl Shared {
    /// Runs the core's timers until the lock manager is finished.
    ///
    /// Dropping the future earlier, with its runtime, shuts the lock manager down: without timers
    /// no wait would end at its limit.
    pub(in crate::lock_manager) fn run_timer(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Created here, not in the future, which may be dropped before its first poll.
        let handle = Handle { shared: self };
        async move { handle.shared.timer_loop().await }
    }

    async fn timer_loop(self: &Arc<Self>) {
        let mut delay: Option<Delay> = None;
        poll_fn(|context| {
            loop {
                self.with_core(|core, now| core.run_due_timers(now));
                let next = {
                    let mut state = self.state();
                    if state.core.is_finished() {
                        return Poll::Ready(());
                    }
                    let next = state.core.next_timer();
                    // Under the mutex, so that no event can set an earlier timer unnoticed before
                    // the waker is stored.
                    state.timer_sleeps_until = next;
                    state.timer_waker = Some(context.waker().clone());
                    next
                };
                let Some(next) = next else {
                    return Poll::Pending;
                };
                // If the time has passed meanwhile, the delay is ready and the loop runs it.
                let left = next.saturating_duration_since(Instant::now());
                let delay = delay.get_or_insert_with(|| Delay::new(left));
                delay.reset(left);
                if Pin::new(delay).poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

impl State {
    /// Takes the timer's waker if it must wake before it planned to, or for the last time.
    pub(super) fn wake_timer_if_earlier(&mut self) -> Option<Waker> {
        let earlier = match (self.core.next_timer(), self.timer_sleeps_until) {
            (Some(next), Some(sleeps_until)) => next < sleeps_until,
            (Some(_), None) => true,
            (None, _) => false,
        };
        // The timer keeps `Shared` alive, and `Shared` the pool: so the timer must end as well.
        if earlier || self.core.is_finished() {
            self.timer_waker.take()
        } else {
            None
        }
    }
}
