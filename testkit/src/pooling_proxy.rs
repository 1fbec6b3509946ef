//! A transaction pooler in front of the test server, with abilities that some poolers have.
//!
//! # Implementation details
//!
//! Each client opens a session, which then belongs to the pool. A transaction of a client runs in
//! the session that was returned last, as with PgBouncer. So two idle clients share one session.
//!
//! A thread per client reads a request: the messages up to a `Query` or a `Sync`. It sends them to
//! a session, and forwards the replies up to `ReadyForQuery`. It returns the session before it
//! forwards that last message. Otherwise another connection of the client could send a request
//! first, and would be given another session. Prepared statements work in every session: the proxy
//! prepares a statement again before each use, and drops the server's replies to that.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::proxy::{server_of, with_port};
use crate::server::{url, with_parameters};
use crate::wire::{FirstMessage, Message, read_first};

/// The ability of a [`PoolingProxy`] beyond transaction pooling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ability {
    Nothing,
    /// Sets a client's settings in each session that the client gets, as poolers do that record
    /// `set_config(…, false)`.
    ReplaysSettings,
    /// Keeps a session for its client while the session holds an advisory lock, if the client sent
    /// a call of a lock function at the top level. A call in a `DO` block is not recognized.
    PinsLockHolders,
}

/// Closes its connections when it is dropped.
#[derive(Debug)]
pub struct PoolingProxy {
    port: u16,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    server: String,
    ability: Ability,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    sessions: Vec<TcpStream>,
    sockets: Vec<TcpStream>,
}

impl PoolingProxy {
    pub fn start(ability: Ability) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let pool = Arc::new(Pool {
            server: server_of(&url()),
            ability,
            state: Mutex::default(),
            returned: Condvar::new(),
        });
        let accepting = Arc::clone(&pool);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.lock().closed {
                    return;
                }
                let pool = Arc::clone(&accepting);
                // The end of a connection is an error of its sockets.
                thread::spawn(move || pool.serve(client));
            }
        });
        Self { port, pool }
    }

    pub fn url(&self) -> String {
        with_parameters(&with_port(&url(), self.port), "sslmode=disable")
    }
}

impl Drop for PoolingProxy {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.closed = true;
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        self.pool.returned.notify_all();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a session. `None` if the proxy is closed.
    fn checkout(&self) -> Option<TcpStream> {
        let mut state = self.lock();
        while !state.closed {
            if let Some(session) = state.sessions.pop() {
                return Some(session);
            }
            let woken = self.returned.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn give(&self, session: TcpStream) {
        self.lock().sessions.push(session);
        self.returned.notify_one();
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        self.lock().sockets.push(stream.try_clone()?);
        let mut server = TcpStream::connect(&self.server)?;
        server.set_nodelay(true)?;
        self.lock().sockets.push(server.try_clone()?);
        match read_first(&mut stream)? {
            // A pooler forwards a cancel request only to the session of that client, if any.
            FirstMessage::Cancel(_) => return Ok(()),
            FirstMessage::StartUp(bytes) => server.write_all(&bytes)?,
        }
        let ready = log_in(&mut stream, &mut server)?;
        self.give(server);
        ready.write(&mut stream)?;
        let mut client = Client {
            pool: self,
            messages: BufReader::new(stream.try_clone()?),
            stream,
            statements: HashMap::new(),
            settings: Vec::new(),
            may_hold_locks: false,
        };
        let mut session = None;
        let served = client.serve(&mut session);
        // A session with an open transaction or a lock ends with its client.
        session.map_or(Ok(()), |session| session.shutdown(Shutdown::Both))?;
        served
    }
}

/// Forwards the messages of both sides until the session is ready, and returns the last one.
fn log_in(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<Message> {
    const AUTHENTICATION: u8 = b'R';
    const READY_FOR_QUERY: u8 = b'Z';
    loop {
        let message = Message::read(server)?;
        if message.kind == READY_FOR_QUERY {
            return Ok(message);
        }
        message.write(client)?;
        // `AuthenticationOk` is 0, and SASL's last message is 12. The client answers the others.
        let expects_reply = !matches!(message.body.first_chunk(), Some([0, 0, 0, 0 | 12]));
        if message.kind == AUTHENTICATION && expects_reply {
            Message::read(client)?.write(server)?;
        }
    }
}

/// A connection of a client.
struct Client<'p> {
    pool: &'p Pool,
    messages: BufReader<TcpStream>,
    stream: TcpStream,
    /// The `Parse` messages, by the names of their statements.
    statements: HashMap<String, Message>,
    /// The calls of `set_config(…, false)`.
    settings: Vec<String>,
    /// `true` while the session may hold a lock that the proxy has recognized.
    may_hold_locks: bool,
}

impl Client<'_> {
    /// Runs requests until the client leaves. `session` is that of an open transaction, or pinned.
    fn serve(&mut self, session: &mut Option<TcpStream>) -> io::Result<()> {
        loop {
            let request = self.read_request()?;
            if session.is_none() {
                let Some(mut checked_out) = self.pool.checkout() else {
                    return Ok(());
                };
                for setting in &self.settings {
                    run(&mut checked_out, &format!("SELECT {setting}"))?;
                }
                *session = Some(checked_out);
            }
            let Some(server) = session.as_mut() else {
                return Ok(());
            };
            for sql in self.texts(&request) {
                match self.pool.ability {
                    Ability::Nothing => {}
                    Ability::ReplaysSettings => self.settings.extend(settings_in(&sql)),
                    Ability::PinsLockHolders => self.may_hold_locks |= calls_lock_function(&sql),
                }
            }
            let ready = self.exchange(request, server)?;
            let is_idle = ready.body == b"I";
            if is_idle && self.may_hold_locks {
                self.may_hold_locks = holds_locks(server)?;
            }
            if is_idle && !self.may_hold_locks {
                session
                    .take()
                    .into_iter()
                    .for_each(|session| self.pool.give(session));
            }
            ready.write(&mut self.stream)?;
        }
    }

    /// Reads the messages up to one that the server answers with `ReadyForQuery`.
    fn read_request(&mut self) -> io::Result<Vec<Message>> {
        const TERMINATE: u8 = b'X';
        let mut request = Vec::new();
        loop {
            let message = Message::read(&mut self.messages)?;
            if message.kind == TERMINATE {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let ends = message.ends_request();
            request.push(message);
            if ends {
                return Ok(request);
            }
        }
    }

    /// Returns the texts that a request runs.
    fn texts(&self, request: &[Message]) -> Vec<String> {
        let parsed = request.iter().filter_map(Message::sql);
        let bound = request
            .iter()
            .filter(|message| message.kind == b'B')
            .filter_map(|message| self.statements.get(statement_name(message)?)?.sql());
        parsed.chain(bound).map(str::to_owned).collect()
    }

    /// Runs a request in a session and forwards the replies, except for the last one, which it
    /// returns: `ReadyForQuery`.
    fn exchange(&mut self, request: Vec<Message>, server: &mut TcpStream) -> io::Result<Message> {
        // For each `Parse` and `Close`, in order: does the client expect its completion?
        let mut completions = VecDeque::new();
        let mut prepared: Vec<String> = Vec::new();
        for message in request {
            if let Some(name) = statement_name(&message).map(str::to_owned) {
                let is_parse = message.kind == b'P';
                if is_parse {
                    self.statements.insert(name.clone(), message.clone());
                }
                if is_parse || !prepared.contains(&name) {
                    Message::new(b'C', [b"S", name.as_bytes(), &[0]].concat()).write(server)?;
                    completions.push_back(false);
                    if let Some(parse) = self.statements.get(&name).filter(|_| !is_parse) {
                        parse.write(server)?;
                        completions.push_back(false);
                    }
                    prepared.push(name);
                }
            }
            if matches!(message.kind, b'P' | b'C') {
                completions.push_back(true);
            }
            message.write(server)?;
        }
        loop {
            let reply = Message::read(server)?;
            if reply.kind == b'Z' {
                return Ok(reply);
            }
            let is_expected = match reply.kind {
                b'1' | b'3' => completions.pop_front().unwrap_or(true),
                _ => true,
            };
            if is_expected {
                reply.write(&mut self.stream)?;
            }
        }
    }
}

/// Returns the name of the statement that a `Parse`, a `Bind` or a `Describe` uses.
fn statement_name(message: &Message) -> Option<&str> {
    match (message.kind, message.body.first()) {
        (b'P', _) => Some(message.text_at(0)),
        (b'B', _) => Some(message.text_at(message.text_at(0).len() + 1)),
        (b'D', Some(b'S')) => Some(message.text_at(1)),
        _ => None,
    }
}

/// Returns the calls of `set_config(…, false)` with literal arguments.
fn settings_in(sql: &str) -> Vec<String> {
    let calls = sql.match_indices("pg_catalog.set_config('");
    let calls = calls.filter_map(|(start, _)| {
        let call = &sql[start..=start + sql[start..].find(')')?];
        // An argument that is no literal is known to the server only.
        let is_literal = call.matches('(').count() == 1;
        (is_literal && call.ends_with(", false)")).then(|| call.to_owned())
    });
    calls.collect()
}

/// Returns whether a text calls a lock function outside `DO` blocks.
fn calls_lock_function(sql: &str) -> bool {
    let outside_blocks = sql.split("$advisory_locking$").step_by(2);
    outside_blocks
        .into_iter()
        .any(|sql| sql.contains("pg_try_advisory_lock") || sql.contains("pg_advisory_lock"))
}

/// Asks the server whether the session holds an advisory lock.
fn holds_locks(server: &mut TcpStream) -> io::Result<bool> {
    let count = run(
        server,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    )?;
    // One column: the number of columns, the length, and the text.
    Ok(count.is_some_and(|row| !row.body.ends_with(b"\0\x010")))
}

/// Runs a statement and returns its last row.
fn run(server: &mut TcpStream, sql: &str) -> io::Result<Option<Message>> {
    Message::query(sql).write(server)?;
    let mut row = None;
    loop {
        let reply = Message::read(server)?;
        match reply.kind {
            b'D' => row = Some(reply),
            b'Z' => return Ok(row),
            _ => {}
        }
    }
}
