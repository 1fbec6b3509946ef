//! Cancel requests for a wait on the server whose future was dropped.
//!
//! # Implementation details
//!
//! A cancel request has a connection of its own. Neither tokio-postgres 0.7 nor diesel-async 0.9
//! shows the TLS connector of a connection, so the application sets one for the process. Without
//! it, tokio-postgres sends the request unencrypted, or with `sslmode=require` not at all. The wait
//! then ends when the server notices that the connection was closed.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{CancelToken, NoTls, Socket};

use crate::backends::background;

/// Sends one request. Its error has no caller who could act on it.
type SendRequest = dyn Fn(CancelToken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Sends requests with the application's TLS connector.
static WITH_TLS: RwLock<Option<Arc<SendRequest>>> = RwLock::new(None);

/// Sets the TLS connector of [cancel requests], for all connections of this process.
///
/// Applications call it once, before the first lock. They need it if their connections use
/// `sslmode=require`, or if a proxy in front of the server accepts TLS only. It takes the connector
/// that [`tokio_postgres::Config::connect`] takes. A second call replaces the connector.
///
/// Without a connector, requests are sent unencrypted, which PostgreSQL accepts also if it accepts
/// sessions with TLS only. With `sslmode=require` no request is sent. Then a dropped wait in the
/// server's queue ends after its connection is closed, which pools do: see
/// [`WaitStrategy::Block`](crate::WaitStrategy::Block) for the time.
///
/// [cancel requests]: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
///
/// # Examples
///
/// At the start of a program whose connections use `connector`, for example a `MakeRustlsConnect`:
///
/// ```
/// use advisory_locking::backends::tokio_postgres::set_cancel_tls;
/// use tokio_postgres::NoTls;
///
/// # let connector = NoTls;
/// set_cancel_tls(connector);
/// ```
pub fn set_cancel_tls<T>(connector: T)
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let send: Arc<SendRequest> = Arc::new(move |token| {
        let connector = connector.clone();
        Box::pin(async move {
            // The next request repeats a failed one. After the last, the server notices the closed
            // connection.
            let _ = token.cancel_query(connector).await;
        })
    });
    *WITH_TLS.write().unwrap_or_else(PoisonError::into_inner) = Some(send);
}

/// Sends [cancel requests] in the background, with or without a runtime.
///
/// One is not enough: a request that overtakes the wait on its way to the server hits nothing. The
/// others follow after 20, 120, 620 and 3,120 milliseconds: the last one after several
/// retransmissions of a lost packet. Each costs a connection, and the server logs each that hits
/// nothing. It does no harm to other sessions, because no later session has the same secret key.
///
/// [cancel requests]: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
pub(crate) fn cancel(token: CancelToken) {
    let runtime = Handle::try_current().ok();
    background::run(move || send_requests(token.clone()), runtime);
}

async fn send_requests(token: CancelToken) {
    send(token.clone()).await;
    for pause in [20, 100, 500, 2_500] {
        futures_timer::Delay::new(Duration::from_millis(pause)).await;
        send(token.clone()).await;
    }
}

async fn send(token: CancelToken) {
    // A clone, so that no request runs under the lock.
    let with_tls = WITH_TLS
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    match with_tls {
        Some(send) => send(token).await,
        None => {
            let _ = token.cancel_query(NoTls).await;
        }
    }
}
