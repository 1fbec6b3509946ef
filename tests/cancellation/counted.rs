//! A way to the server that counts its connections, and keeps the warnings which come back on all of them.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::observer::database_url;
use crate::proxy::{Messages, NOTICE, pump, server_of};
use crate::silence::by_port;

pub(crate) struct Counted {
    port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicU32,
    notices: Mutex<Vec<String>>,
}

impl Counted {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let seeing = Arc::clone(&seen);
        // These threads end with their connections, and the first one with the process.
        thread::spawn(move || {
            for client in listener.incoming() {
                seeing.connections.fetch_add(1, Ordering::SeqCst);
                let (client, seeing) = (client.unwrap(), Arc::clone(&seeing));
                thread::spawn(move || pass_on(&client, &seeing));
            }
        });
        Self { port, seen }
    }

    /// The server's URL by this way. What is encrypted could not be counted.
    pub(crate) fn url(&self) -> String {
        let url = by_port(self.port);
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}sslmode=disable")
    }

    /// How many connections have been opened, those of cancel requests among them.
    pub(crate) fn connections(&self) -> u32 {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The notices and warnings that the server has sent, each with what came beside it.
    pub(crate) fn notices(&self) -> Vec<String> {
        self.seen.notices.lock().unwrap().clone()
    }
}

fn pass_on(client: &TcpStream, seen: &Seen) {
    let server = TcpStream::connect(server_of(&database_url())).unwrap();
    for socket in [client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| pump(client, &server, |_| ()));
        let mut messages = Messages::default();
        pump(&server, client, |bytes| {
            messages.read(bytes, |message| {
                if message == NOTICE {
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    seen.notices.lock().unwrap().push(text);
                }
            });
        });
    });
}
