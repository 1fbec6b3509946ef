//! Ending a wait on the server whose future was dropped.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::{CancelToken, NoTls};

use crate::backends::background::{self, Job};

/// Cancels what runs on a connection until it is surely gone; in the background, with or without a runtime.
pub(super) fn cancel(token: CancelToken) {
    let requests = Requests {
        token,
        left: 8,
        pause: Duration::from_millis(20),
    };
    background::run(requests, Handle::try_current().ok());
}

/// Once is not enough: a cancel that overtakes the wait on its way to the server hits nothing. Too often does no harm, for when the
/// session has ended, nobody else answers to its secret key.
struct Requests {
    token: CancelToken,
    left: u32,
    pause: Duration,
}

impl Job for Requests {
    async fn run(&mut self) {
        while self.left > 0 {
            let _ = self.token.cancel_query(NoTls).await;
            self.left -= 1;
            futures_timer::Delay::new(self.pause).await;
            self.pause *= 2;
        }
    }
}
