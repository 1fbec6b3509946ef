//! A network between a client and the server that can fall silent, lose what is sent, or be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{SockFilter, SockRef};

/// Far longer than anything takes that is waited for.
const LIMIT: Duration = Duration::from_secs(20);

/// What becomes of the bytes that flow in one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    Pass,
    /// They wait until they may pass, or the connection is cut.
    Held,
    Lost,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

#[derive(Debug)]
struct State {
    flows: [Flow; 2],
    cut: bool,
    /// Bytes that came while they could not pass.
    kept_back: [usize; 2],
    sockets: Vec<TcpStream>,
    to_server: Vec<TcpStream>,
    pumps: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub(crate) struct Relay {
    port: u16,
    server: String,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// In front of the server that `url` names as `scheme://[user@]host[:port]/...`.
    pub(crate) fn start(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = host_of(url).to_owned();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                flows: [Flow::Pass; 2],
                cut: false,
                kept_back: [0; 2],
                sockets: Vec::new(),
                to_server: Vec::new(),
                pumps: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let accepting = {
            let (shared, server) = (Arc::clone(&shared), server.clone());
            thread::spawn(move || {
                for client in listener.incoming() {
                    if shared.lock().cut {
                        return;
                    }
                    let server = TcpStream::connect(&server).unwrap();
                    Shared::carry(&shared, client.unwrap(), server);
                }
            })
        };
        Self {
            port,
            server,
            shared,
            accepting: Some(accepting),
        }
    }

    /// The server that `url` names, by way of the relay.
    pub(crate) fn through(&self, url: &str) -> String {
        url.replacen(&self.server, &format!("127.0.0.1:{}", self.port), 1)
    }

    pub(crate) fn set(&self, direction: Direction, flow: Flow) {
        self.shared.lock().flows[direction as usize] = flow;
        self.shared.changed.notify_all();
    }

    /// Blocks until bytes have come that could not pass.
    pub(crate) fn until_kept_back(&self, direction: Direction) {
        let mut state = self.shared.lock();
        while state.kept_back[direction as usize] == 0 {
            let waited = self.shared.changed.wait_timeout(state, LIMIT);
            let (next, limit) = waited.unwrap_or_else(PoisonError::into_inner);
            assert!(!limit.timed_out(), "nothing was sent {direction:?}");
            state = next;
        }
    }

    /// Nothing passes any more, in either direction, and the server's packets are not even acknowledged, as when a cable is pulled out.
    pub(crate) fn fall_silent(&self) {
        let state = self.shared.lock();
        for socket in &state.to_server {
            // Drops every packet before TCP sees it: BPF's `return 0`.
            const RETURN: u16 = 0x06;
            SockRef::from(socket)
                .attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
                .expect("a socket's owner may filter it");
        }
        drop(state);
        self.set(Direction::ToServer, Flow::Held);
        self.set(Direction::ToClient, Flow::Held);
    }

    /// Closes every connection; new ones are accepted.
    pub(crate) fn break_connections(&self) {
        for socket in self.shared.lock().sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Closes every connection; later ones are not accepted.
    pub(crate) fn cut(&self) {
        self.shared.lock().cut = true;
        self.break_connections();
        self.shared.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        // So that it stops accepting.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let pumps = std::mem::take(&mut self.shared.lock().pumps);
        for thread in pumps.into_iter().chain(self.accepting.take()) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the relay panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(shared: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let copy = |socket: &TcpStream| {
            socket.set_nodelay(true).unwrap();
            socket.try_clone().unwrap()
        };
        let mut state = shared.lock();
        state.sockets.extend([copy(&client), copy(&server)]);
        state.to_server.push(copy(&server));
        let ways = [
            (copy(&client), copy(&server), Direction::ToServer),
            (server, client, Direction::ToClient),
        ];
        for (from, to, direction) in ways {
            let shared = Arc::clone(shared);
            state
                .pumps
                .push(thread::spawn(move || shared.pump(from, to, direction)));
        }
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if self.may_pass(direction, count) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // An end, too, is kept back.
        if self.may_pass(direction, 0) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    /// Whether bytes may pass, once that is certain.
    fn may_pass(&self, direction: Direction, count: usize) -> bool {
        let mut state = self.lock();
        loop {
            if state.cut {
                return false;
            }
            let flow = state.flows[direction as usize];
            if flow == Flow::Pass {
                return true;
            }
            state.kept_back[direction as usize] += count;
            self.changed.notify_all();
            if flow == Flow::Lost {
                return false;
            }
            while state.flows[direction as usize] == Flow::Held && !state.cut {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// The host and port of an address.
fn host_of(url: &str) -> &str {
    let authority = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?']).next()?.rsplit('@').next())
        .filter(|host| host.contains(':'));
    authority.expect(
        "the relay needs a DATABASE_URL with a host and a port: postgres://user@host:port/db",
    )
}
