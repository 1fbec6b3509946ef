//! Cancel requests.

use tokio_postgres::{CancelToken, NoTls};

use super::settings::Settings;
use super::{Connection, Target, socket, tls, tls_for};

impl Connection {
    /// Returns a handle that cancels the statement in flight.
    pub(crate) fn canceller(&self, settings: &Settings) -> Canceller {
        Canceller {
            token: self.client.cancel_token(),
            target: self.target.clone(),
            settings: settings.clone(),
        }
    }
}

/// Sends a cancel request, with a connection of its own.
pub(crate) struct Canceller {
    token: CancelToken,
    target: Target,
    settings: Settings,
}

impl Canceller {
    /// Cancels the statement in flight. A failure has no consequence but a later end of the wait.
    pub(crate) async fn cancel(&self) {
        match socket::open(&self.target.address, &self.settings).await {
            Ok(socket::Stream::Unix(stream)) => {
                drop(self.token.cancel_query_raw(stream, NoTls).await)
            }
            Ok(socket::Stream::Tcp(stream)) => {
                let Ok(connector) = tls::connector(&self.settings) else {
                    return;
                };
                let tls = tls_for(connector, &self.target);
                drop(self.token.cancel_query_raw(stream, tls).await);
            }
            Err(_) => {}
        }
    }
}
