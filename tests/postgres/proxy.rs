//! A connection through a proxy that counts what the server answers.
//!
//! A *round trip* is what a client sends before it must wait, and the answers to it. The server ends each with one
//! `ReadyForQuery`, so counting those is exact whatever the packets look like.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use diesel::Connection;
use diesel::pg::PgConnection;

/// The type of the message that is a notice or a warning.
pub(crate) const NOTICE: u8 = b'N';

#[derive(Debug, Default)]
struct Counts {
    ready: AtomicU32,
    notices: AtomicU32,
}

impl Counts {
    fn count(&self, message: u8) {
        match message {
            b'Z' => self.ready.fetch_add(1, Ordering::SeqCst),
            NOTICE => self.notices.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
    }
}

/// A connection whose answers are counted. Fields are dropped in order: the connection's end ends the proxy.
pub(crate) struct Counted {
    pub(crate) conn: PgConnection,
    proxy: Proxy,
}

impl Counted {
    /// Connects through a proxy of its own to the server that `url` names as `scheme://[user@]host[:port]/...`.
    pub(crate) fn connect(url: &str) -> Self {
        let (proxy, port) = Proxy::to(url);
        let through = format!("{}&gssencmode=disable", in_the_clear(&by_port(url, port)));
        Self {
            conn: PgConnection::establish(&through).unwrap(),
            proxy,
        }
    }

    /// How many round trips `act` takes.
    pub(crate) fn round_trips<T>(&mut self, act: impl FnOnce(&mut PgConnection) -> T) -> (u32, T) {
        self.round_trips_within(|conn, _| act(conn))
    }

    /// The same for an `act` that asks how many it has taken so far.
    pub(crate) fn round_trips_within<T>(
        &mut self,
        act: impl FnOnce(&mut PgConnection, &dyn Fn() -> u32) -> T,
    ) -> (u32, T) {
        let before = self.proxy.round_trips();
        let so_far = || self.proxy.round_trips() - before;
        let value = act(&mut self.conn, &so_far);
        (so_far(), value)
    }

    /// How many notices and warnings the server has sent.
    pub(crate) fn notices(&self) -> u32 {
        self.proxy.notices()
    }
}

/// The server that a URL names, by way of a port of this machine.
pub(crate) fn by_port(url: &str, port: u16) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let user = authority
        .rfind('@')
        .map_or("", |at| authority.split_at(at + 1).0);
    format!("{scheme}://{user}127.0.0.1:{port}{rest}")
}

/// Encrypted answers could not be counted. The last of two values counts.
pub(crate) fn in_the_clear(url: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}sslmode=disable")
}

/// The host and port that a URL names.
pub(crate) fn server_of(url: &str) -> String {
    let authority = url.split_once("://").and_then(|(_, rest)| {
        let authority = rest.split(['/', '?']).next()?;
        authority.rsplit('@').next()
    });
    match authority {
        None | Some("") => {
            panic!("counting needs a DATABASE_URL with a host: postgres://user@host/db")
        }
        Some(host)
            if host
                .rsplit(']')
                .next()
                .is_some_and(|rest| rest.contains(':')) =>
        {
            host.into()
        }
        Some(host) => format!("{host}:5432"),
    }
}

/// A proxy for one connection, whose end it waits for when it is dropped.
pub(crate) struct Proxy {
    counts: Arc<Counts>,
    pump: Option<JoinHandle<()>>,
}

impl Proxy {
    /// To the server that a URL names; and the port it listens on.
    pub(crate) fn to(url: &str) -> (Self, u16) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        (Self::start(listener, server_of(url)), port)
    }

    /// How many round trips there were.
    pub(crate) fn round_trips(&self) -> u32 {
        self.counts.ready.load(Ordering::SeqCst)
    }

    /// How many notices and warnings the server has sent.
    pub(crate) fn notices(&self) -> u32 {
        self.counts.notices.load(Ordering::SeqCst)
    }

    fn start(listener: TcpListener, server: String) -> Self {
        let counts = Arc::new(Counts::default());
        let counting = Arc::clone(&counts);
        let pump = thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = TcpStream::connect(server).unwrap();
            for socket in [&client, &server] {
                socket.set_nodelay(true).unwrap();
            }
            thread::scope(|scope| {
                scope.spawn(|| pump(&client, &server, |_| ()));
                let mut messages = Messages::default();
                pump(&server, &client, |bytes| {
                    messages.read(bytes, |message| counting.count(message));
                });
            });
        });
        Self {
            counts,
            pump: Some(pump),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

/// Passes on what comes until one side closes, after `see` has seen it.
pub(crate) fn pump(mut from: &TcpStream, mut to: &TcpStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        see(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Finds the messages in a stream: a type, then the length of the rest.
#[derive(Default)]
pub(crate) struct Messages {
    header: Vec<u8>,
    body_left: usize,
}

impl Messages {
    pub(crate) fn read(&mut self, bytes: &[u8], mut see: impl FnMut(u8)) {
        for byte in bytes {
            if self.body_left > 0 {
                self.body_left -= 1;
                continue;
            }
            self.header.push(*byte);
            if let [message, length @ ..] = &self.header[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                see(*message);
                self.body_left = u32::from_be_bytes(length) as usize - 4;
                self.header.clear();
            }
        }
    }
}
