//! A way to the server that counts its connections, and the warnings which come back on all of them.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::observer::database_url;
use crate::proxy::{Messages, NOTICE, pump, server_of};
use crate::silence::by_port;

pub(crate) struct Counted {
    port: u16,
    notices: Arc<AtomicU32>,
    connections: Arc<AtomicU32>,
}

impl Counted {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let notices = Arc::new(AtomicU32::new(0));
        let connections = Arc::new(AtomicU32::new(0));
        let (counting, opened) = (Arc::clone(&notices), Arc::clone(&connections));
        // These threads end with their connections, and the first one with the process.
        thread::spawn(move || {
            for client in listener.incoming() {
                opened.fetch_add(1, Ordering::SeqCst);
                let (client, counting) = (client.unwrap(), Arc::clone(&counting));
                thread::spawn(move || pass_on(&client, &counting));
            }
        });
        Self {
            port,
            notices,
            connections,
        }
    }

    /// The server's URL by this way. What is encrypted could not be counted.
    pub(crate) fn url(&self) -> String {
        let url = by_port(self.port);
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}sslmode=disable")
    }

    /// How many connections have been opened, those of cancel requests among them.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many notices and warnings the server has sent.
    pub(crate) fn notices(&self) -> u32 {
        self.notices.load(Ordering::SeqCst)
    }
}

fn pass_on(client: &TcpStream, notices: &AtomicU32) {
    let server = TcpStream::connect(server_of(&database_url())).unwrap();
    for socket in [client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| pump(client, &server, |_| ()));
        let mut messages = Messages::default();
        pump(&server, client, |bytes| {
            messages.read(bytes, |message| {
                notices.fetch_add(u32::from(message == NOTICE), Ordering::SeqCst);
            });
        });
    });
}
