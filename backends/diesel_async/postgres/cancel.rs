//! Ending a wait on the server whose future was dropped.

use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_postgres::{CancelToken, NoTls};

/// Cancels what runs on a connection until it is surely gone; in the background, with or without a runtime.
///
/// Once is not enough: a cancel that overtakes the wait on its way to the server hits nothing. Too often does no harm, for when the
/// session has ended, nobody else answers to its secret key.
pub(super) fn cancel(token: CancelToken) {
    let requests = Requests {
        token,
        left: 8,
        pause: Duration::from_millis(20),
    };
    let in_runtime = InRuntime(Some(requests));
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(in_runtime.send());
    }
}

/// Cancel requests that are to be sent in a runtime. Where there is none, or it ends before they are sent, a thread takes over.
struct InRuntime(Option<Requests>);

impl InRuntime {
    async fn send(mut self) {
        if let Some(requests) = &mut self.0 {
            requests.send().await;
        }
        self.0 = None;
    }
}

impl Drop for InRuntime {
    fn drop(&mut self) {
        let Some(mut requests) = self.0.take() else {
            return;
        };
        let thread = std::thread::Builder::new().name("advisory-locking".to_owned());
        // Without a thread the wait lasts to its limit; there is nobody to tell.
        let _ = thread.spawn(move || {
            if let Ok(runtime) = Builder::new_current_thread().enable_all().build() {
                runtime.block_on(requests.send());
            }
        });
    }
}

struct Requests {
    token: CancelToken,
    left: u32,
    pause: Duration,
}

impl Requests {
    async fn send(&mut self) {
        while self.left > 0 {
            let _ = self.token.cancel_query(NoTls).await;
            self.left -= 1;
            futures_timer::Delay::new(self.pause).await;
            self.pause *= 2;
        }
    }
}
