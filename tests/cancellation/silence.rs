//! A server that falls silent: a proxy that stops passing on, for as long as the test wants.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::observer::database_url;
use crate::proxy::{pump, server_of};

/// A way to the server of the tests that can be made silent.
pub(crate) struct Server {
    port: u16,
    switch: Arc<Switch>,
}

/// Whether what comes is passed on.
#[derive(Default)]
pub(crate) struct Switch {
    silent_since: Mutex<Option<Instant>>,
    ended: Condvar,
}

impl Switch {
    fn set(&self, silent_since: Option<Instant>) {
        *self.silent_since.lock().unwrap() = silent_since;
        self.ended.notify_all();
    }

    fn wait(&self) {
        let silent_since = self.silent_since.lock().unwrap();
        let _passing = self
            .ended
            .wait_while(silent_since, |silent| silent.is_some())
            .unwrap();
    }

    /// How long nothing has been passed on.
    pub(crate) fn silent_for(&self) -> Duration {
        let silent_since = *self.silent_since.lock().unwrap();
        silent_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Server {
    pub(crate) fn new(switch: Arc<Switch>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let passing = Arc::clone(&switch);
        // These threads end with their connections, and the first one with the process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, switch) = (client.unwrap(), Arc::clone(&passing));
                thread::spawn(move || pass_on(&client, &switch));
            }
        });
        Self { port, switch }
    }

    /// The server's URL by this way.
    pub(crate) fn url(&self) -> String {
        by_port(self.port)
    }

    /// From now on, no answer comes and nothing arrives.
    pub(crate) fn fall_silent(&self) -> Silence<'_> {
        self.switch.set(Some(Instant::now()));
        Silence(&self.switch)
    }
}

/// The server's URL by way of a port of this machine.
pub(crate) fn by_port(port: u16) -> String {
    crate::proxy::by_port(&database_url(), port)
}

/// Ends when it is dropped.
pub(crate) struct Silence<'s>(&'s Switch);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

fn pass_on(client: &TcpStream, switch: &Switch) {
    switch.wait();
    let server = TcpStream::connect(server_of(&database_url())).unwrap();
    for socket in [client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| pump(client, &server, |_| switch.wait()));
        pump(&server, client, |_| switch.wait());
    });
}
