//! Cancel requests for a wait on the server whose future was dropped.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::{CancelToken, NoTls};

use crate::backends::background::{self, Job};

/// Sends [cancel requests] in the background, with or without a runtime.
///
/// [cancel requests]: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
pub(super) fn cancel(token: CancelToken) {
    let requests = CancelRequests {
        token,
        left: 8,
        pause: Duration::from_millis(20),
    };
    background::run(requests, Handle::try_current().ok());
}

/// Repeated cancel requests.
///
/// One is not enough: a request that overtakes the wait on its way to the server hits nothing. The
/// last of the eight follows the first after about 2.5 seconds. A request too many does no harm to
/// other sessions, because no later session has the same secret key.
struct CancelRequests {
    token: CancelToken,
    left: u32,
    pause: Duration,
}

impl Job for CancelRequests {
    async fn run(&mut self) {
        while self.left > 0 {
            // A request has no reply, and an error has no caller who could act on it.
            let _ = self.token.cancel_query(NoTls).await;
            // Counted after the request, so that a thread that takes over repeats a dropped one.
            self.left -= 1;
            futures_timer::Delay::new(self.pause).await;
            self.pause *= 2;
        }
    }
}
