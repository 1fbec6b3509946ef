//! A TCP proxy in front of the test server.
//!
//! # Implementation details
//!
//! Each connection has two threads, one for each [`Direction`]. A thread reads, records what it
//! has read in the [`Proxy`]'s statistics, asks the [`Policy`] of its direction, and writes. So a
//! message is counted before its receiver can react to it.
//!
//! A *round trip* is what a client sends before it must wait, and the replies to it. The server
//! ends each with one
//! [`ReadyForQuery`](https://www.postgresql.org/docs/current/protocol-message-formats.html), so
//! the count of those does not depend on packets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::pg::PgConnection;
use socket2::{SockFilter, SockRef};

use crate::server::{TIMEOUT, url, with_parameters};
use crate::wire::Message;

/// Treatment of the bytes in one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    Forward,
    /// Keeps bytes back until the policy is `Forward`, or the connection is cut.
    Hold,
    /// Discards bytes.
    Discard,
}

#[derive(Clone, Copy, Debug)]
pub enum Direction {
    ToServer,
    ToClient,
}

#[derive(Debug)]
struct State {
    policies: [Policy; 2],
    cut: bool,
    stalled_since: Option<Instant>,
    /// Bytes that arrived while the policy was not `Forward`.
    held_bytes: [usize; 2],
    connections: u32,
    round_trips: u32,
    /// A connection is held towards the server from the packet that contains this text.
    hold_from: Option<String>,
    /// A message for the server in place of everything that such a connection sends.
    replacement: Option<Message>,
    /// The notices and warnings of the server, each with the other messages of its packet.
    notices: Vec<String>,
    carried: Vec<Carried>,
    /// A thread of an ended connection panicked.
    panicked: bool,
}

/// A connection of a client, with the proxy's connection to the server.
#[derive(Debug)]
struct Carried {
    client: TcpStream,
    server: TcpStream,
    pumps: [JoinHandle<()>; 2],
}

impl Carried {
    fn shut_down(&self) {
        for socket in [&self.client, &self.server] {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn has_ended(&self) -> bool {
        self.pumps.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the threads, and returns `true` if one panicked.
    fn join(self) -> bool {
        let ended = self.pumps.map(JoinHandle::join);
        ended.iter().any(Result::is_err)
    }
}

#[derive(Debug)]
struct Shared {
    server: String,
    state: Mutex<State>,
    changed: Condvar,
}

/// Closes all connections when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    url: String,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in front of the test server.
    pub fn start() -> Self {
        Self::to(&url())
    }

    /// Starts a proxy in front of the server of an address `scheme://[user@]host[:port]/...`.
    pub fn to(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: server_of(url),
            state: Mutex::new(State {
                policies: [Policy::Forward; 2],
                cut: false,
                stalled_since: None,
                held_bytes: [0; 2],
                connections: 0,
                round_trips: 0,
                hold_from: None,
                replacement: None,
                notices: Vec::new(),
                carried: Vec::new(),
                panicked: false,
            }),
            changed: Condvar::new(),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for client in listener.incoming() {
                    if shared.lock().cut {
                        return;
                    }
                    Shared::carry(&shared, client.unwrap());
                }
            })
        };
        Self {
            port,
            url: url.to_owned(),
            shared,
            accepting: Some(accepting),
        }
    }

    /// Returns the server's address by way of the proxy, without TLS, which could not be counted.
    pub fn url(&self) -> String {
        with_parameters(&with_port(&self.url, self.port), "sslmode=disable")
    }

    /// Returns the number of accepted connections, including those of cancel requests.
    pub fn connections(&self) -> u32 {
        self.shared.lock().connections
    }

    pub fn round_trips(&self) -> u32 {
        self.shared.lock().round_trips
    }

    /// Returns the notices and warnings of the server.
    pub fn notices(&self) -> Vec<String> {
        self.shared.lock().notices.clone()
    }

    pub fn notice_count(&self) -> usize {
        self.shared.lock().notices.len()
    }

    pub fn set(&self, direction: Direction, policy: Policy) {
        let mut state = self.shared.lock();
        state.policies[direction as usize] = policy;
        // Of an earlier policy.
        state.held_bytes[direction as usize] = 0;
        drop(state);
        self.shared.changed.notify_all();
    }

    fn set_both(&self, policy: Policy, stalled_since: Option<Instant>) {
        let mut state = self.shared.lock();
        state.policies = [policy; 2];
        state.hold_from = None;
        state.stalled_since = stalled_since;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Holds a connection towards the server from the packet that contains `text`, until
    /// [`forward`](Self::forward). Other connections are not held.
    pub fn hold_from(&self, text: &str) {
        let mut state = self.shared.lock();
        state.hold_from = Some(text.to_owned());
        // Of an earlier packet.
        state.held_bytes[Direction::ToServer as usize] = 0;
    }

    /// Ends [`hold_from`](Self::hold_from), and discards everything that the server sends then.
    pub fn forward_without_replies(&self) {
        let mut state = self.shared.lock();
        state.policies[Direction::ToServer as usize] = Policy::Forward;
        state.policies[Direction::ToClient as usize] = Policy::Discard;
        state.hold_from = None;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Ends [`hold_from`](Self::hold_from), and gives the server's session to another client: sends
    /// a simple query instead of everything that the held connection has sent and will send.
    pub fn replace_held(&self, sql: &str) {
        self.shared.lock().replacement = Some(Message::query(sql));
        self.forward();
    }

    /// Returns `true` if bytes have arrived that the policy does not forward.
    pub fn holds(&self, direction: Direction) -> bool {
        self.shared.lock().held_bytes[direction as usize] > 0
    }

    /// Blocks until bytes have arrived that the policy does not forward.
    #[track_caller]
    pub fn wait_until_held(&self, direction: Direction) {
        let mut state = self.shared.lock();
        while state.held_bytes[direction as usize] == 0 {
            let waited = self.shared.changed.wait_timeout(state, TIMEOUT);
            let (next, limit) = waited.unwrap_or_else(PoisonError::into_inner);
            assert!(!limit.timed_out(), "nothing was sent {direction:?}");
            state = next;
        }
    }

    /// Holds all bytes of both directions until the returned value is dropped.
    pub fn stall(&self) -> Stall<'_> {
        self.set_both(Policy::Hold, Some(Instant::now()));
        Stall(self)
    }

    /// Returns a handle for another thread that shows the duration of a stall.
    pub fn stall_clock(&self) -> StallClock {
        StallClock(Arc::clone(&self.shared))
    }

    /// Forwards nothing more, and drops the server's packets before TCP acknowledges them, as a
    /// pulled cable does.
    pub fn fall_silent(&self) {
        let state = self.shared.lock();
        for carried in &state.carried {
            // BPF's `return 0`, which drops each packet.
            const RETURN: u16 = 0x06;
            SockRef::from(&carried.server)
                .attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
                .expect("a socket's owner may filter it");
        }
        drop(state);
        self.set_both(Policy::Hold, None);
    }

    /// Forwards what new connections send. Connections that fell silent stay so.
    pub fn forward(&self) {
        self.set_both(Policy::Forward, None);
    }

    /// Closes every connection; new ones are accepted.
    pub fn break_connections(&self) {
        self.shared
            .lock()
            .carried
            .iter()
            .for_each(Carried::shut_down);
    }

    /// Closes every connection; new ones are not accepted.
    pub fn cut(&self) {
        self.shared.lock().cut = true;
        self.break_connections();
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let accepting = self.accepting.take().map(JoinHandle::join);
        // Without the lock, which the threads need to end.
        let carried = std::mem::take(&mut self.shared.lock().carried);
        let mut panicked = self.shared.lock().panicked;
        panicked |= accepting.is_some_and(|ended| ended.is_err());
        for carried in carried {
            panicked |= carried.join();
        }
        assert!(!panicked || thread::panicking(), "the proxy panicked");
    }
}

/// Ends the stall when it is dropped.
#[derive(Debug)]
pub struct Stall<'p>(&'p Proxy);

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.0.forward();
    }
}

#[derive(Debug)]
pub struct StallClock(Arc<Shared>);

impl StallClock {
    /// Returns the duration of the present stall, or zero.
    pub fn elapsed(&self) -> Duration {
        let since = self.0.lock().stalled_since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(shared: &Arc<Self>, client: TcpStream) {
        let mut state = shared.lock();
        state.connections += 1;
        state.forget_ended_connections();
        // Without a server the client's connection is closed.
        let Ok(server) = TcpStream::connect(&shared.server) else {
            return;
        };
        let copy = |socket: &TcpStream| {
            socket.set_nodelay(true).unwrap();
            socket.try_clone().unwrap()
        };
        let pump = |from: &TcpStream, to: &TcpStream, direction| {
            let (shared, from, to) = (Arc::clone(shared), copy(from), copy(to));
            thread::spawn(move || shared.pump(from, to, direction))
        };
        let pumps = [
            pump(&client, &server, Direction::ToServer),
            pump(&server, &client, Direction::ToClient),
        ];
        state.carried.push(Carried {
            client,
            server,
            pumps,
        });
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = [0; 16 * 1024];
        let mut messages = Messages::default();
        let mut held = false;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..count];
            if matches!(direction, Direction::ToClient) {
                messages.read(bytes, |message| self.count(message, bytes));
            }
            held |= matches!(direction, Direction::ToServer) && self.holds_from(bytes);
            if !self.may_forward(direction, count, held) {
                continue;
            }
            if held && let Some(replacement) = self.take_replacement() {
                let _ = replacement.write(&mut to);
                let _ = io::copy(&mut from, &mut io::sink());
                // The session stays open.
                return;
            }
            if to.write_all(bytes).is_err() {
                break;
            }
        }
        // The end of a stream is held too.
        if self.may_forward(direction, 0, held) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    fn count(&self, message: u8, packet: &[u8]) {
        const READY_FOR_QUERY: u8 = b'Z';
        const NOTICE_RESPONSE: u8 = b'N';
        match message {
            READY_FOR_QUERY => self.lock().round_trips += 1,
            NOTICE_RESPONSE => {
                let text = String::from_utf8_lossy(packet).into_owned();
                self.lock().notices.push(text);
            }
            _ => {}
        }
    }

    /// Returns `true` if a packet contains the text from which its connection is held.
    fn holds_from(&self, packet: &[u8]) -> bool {
        let state = self.lock();
        state.hold_from.as_ref().is_some_and(|text| {
            let text = text.as_bytes();
            packet.windows(text.len()).any(|window| window == text)
        })
    }

    fn take_replacement(&self) -> Option<Message> {
        self.lock().replacement.take()
    }

    /// Returns `true` if bytes are to be forwarded, after waiting for as long as they are held.
    fn may_forward(&self, direction: Direction, count: usize, held: bool) -> bool {
        let mut state = self.lock();
        loop {
            if state.cut {
                return false;
            }
            let policy = state.policy(direction, held);
            if policy == Policy::Forward {
                return true;
            }
            state.held_bytes[direction as usize] += count;
            self.changed.notify_all();
            if policy == Policy::Discard {
                return false;
            }
            while state.policy(direction, held) == Policy::Hold && !state.cut {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl State {
    /// Closes the sockets of ended connections, so that the proxy of a long test does not need all
    /// file descriptors of the process.
    fn forget_ended_connections(&mut self) {
        let carried = std::mem::take(&mut self.carried).into_iter();
        let (ended, open): (Vec<_>, _) = carried.partition(Carried::has_ended);
        self.carried = open;
        for carried in ended {
            self.panicked |= carried.join();
        }
    }

    fn policy(&self, direction: Direction, held: bool) -> Policy {
        if held && self.hold_from.is_some() {
            Policy::Hold
        } else {
            self.policies[direction as usize]
        }
    }
}

/// Finds the messages in a stream: a type, then the length of the rest.
#[derive(Default)]
struct Messages {
    header: Vec<u8>,
    body_left: usize,
}

impl Messages {
    fn read(&mut self, bytes: &[u8], mut on_message: impl FnMut(u8)) {
        for byte in bytes {
            if self.body_left > 0 {
                self.body_left -= 1;
                continue;
            }
            self.header.push(*byte);
            if let [message, length @ ..] = &self.header[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                on_message(*message);
                self.body_left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.header.clear();
            }
        }
    }
}

/// A connection through a proxy of its own. Fields are dropped in order, so the connection ends
/// before the proxy.
#[allow(missing_debug_implementations, reason = "a connection has none")]
pub struct CountedConnection {
    pub conn: PgConnection,
    proxy: Proxy,
}

impl CountedConnection {
    pub fn connect(url: &str) -> Self {
        let proxy = Proxy::to(url);
        // GSSAPI encryption, which libpq tries first, could not be counted.
        let url = with_parameters(&proxy.url(), "gssencmode=disable");
        Self {
            conn: PgConnection::establish(&url).unwrap(),
            proxy,
        }
    }

    /// Runs `call`, and returns its number of round trips.
    pub fn round_trips<T>(&mut self, call: impl FnOnce(&mut PgConnection) -> T) -> (u32, T) {
        self.round_trips_within(|conn, _| call(conn))
    }

    /// Runs a `call` that can read its own number of round trips so far.
    pub fn round_trips_within<T>(
        &mut self,
        call: impl FnOnce(&mut PgConnection, &dyn Fn() -> u32) -> T,
    ) -> (u32, T) {
        let before = self.proxy.round_trips();
        let so_far = || self.proxy.round_trips() - before;
        let value = call(&mut self.conn, &so_far);
        (so_far(), value)
    }

    /// Returns the number of notices and warnings of the server.
    pub fn notices(&self) -> usize {
        self.proxy.notice_count()
    }
}

/// Replaces the host of an address by a port of this machine.
pub(crate) fn with_port(url: &str, port: u16) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let user = authority
        .rfind('@')
        .map_or("", |at| authority.split_at(at + 1).0);
    format!("{scheme}://{user}127.0.0.1:{port}{rest}")
}

/// Returns the host and port of an address.
pub(crate) fn server_of(url: &str) -> String {
    let authority = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?']).next()?.rsplit('@').next());
    match authority {
        None | Some("") => {
            panic!("the proxy needs a DATABASE_URL with a host: postgres://user@host/db")
        }
        // After the brackets of an IPv6 address.
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
