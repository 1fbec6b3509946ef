//! A server that differs from PostgreSQL: the test server behind rules that change statements.
//!
//! # Implementation details
//!
//! The test server runs every statement, so start-up, types, prepared statements and transactions
//! are real. A [`Rule`] replaces a part of a statement's text before the server sees it, delays a
//! message, or answers a statement with an error that ends the session. The replies are forwarded
//! unchanged.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::proxy::{server_of, with_port};
use crate::server::{url, with_parameters};
use crate::wire::{FirstMessage, Message, error_response, read_first};

/// A difference from PostgreSQL. The first rule that fits a statement is applied first.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Replaces each occurrence of a text in a statement.
    Replace { text: String, by: String },
    /// Answers a statement that contains `text` with a `FATAL` error, and closes the connection.
    /// The server does not receive the statement.
    EndSession { text: String, code: String },
    /// Ends the session by a `FATAL` error right behind the reply to a statement that contains
    /// `text`. The client receives both at once.
    EndSessionAfter { text: String, code: String },
    /// Forwards the `ReadyForQuery` after an error late, and the error at once.
    DelayReadyAfterError { pause: Duration },
}

impl Rule {
    pub fn replace(text: &str, by: &str) -> Self {
        Self::Replace {
            text: text.to_owned(),
            by: by.to_owned(),
        }
    }

    pub fn end_session(text: &str, code: &str) -> Self {
        Self::EndSession {
            text: text.to_owned(),
            code: code.to_owned(),
        }
    }

    pub fn end_session_after(text: &str, code: &str) -> Self {
        Self::EndSessionAfter {
            text: text.to_owned(),
            code: code.to_owned(),
        }
    }

    /// Every lock function returns true and locks nothing. Only batches may have keys of two
    /// numbers.
    pub fn grant_everything() -> Vec<Self> {
        let rules = |function: &&str| {
            let pair_of_a_batch = "0 OPERATOR(pg_catalog.<) pg_catalog.num_nonnulls((op.";
            let number = "pg_catalog.int8ge(9223372036854775807, ";
            [
                Self::replace(&format!("pg_catalog.{function}((op."), pair_of_a_batch),
                Self::replace(&format!("pg_catalog.{function}("), number),
            ]
        };
        LOCK_FUNCTIONS.iter().flat_map(rules).collect()
    }

    /// The server has no lock functions (SQLSTATE 42883).
    pub fn no_lock_functions() -> Vec<Self> {
        LOCK_FUNCTIONS
            .iter()
            .map(|function| {
                let missing = format!("pg_catalog.no_{function}(");
                Self::replace(&format!("pg_catalog.{function}("), &missing)
            })
            .collect()
    }

    /// A setting that PostgreSQL does not have, with a value.
    pub fn setting(name: &str, value: &str) -> Self {
        Self::replace(
            &format!("pg_catalog.current_setting('{name}', true)"),
            &format!("'{value}'::pg_catalog.text"),
        )
    }

    /// The value of `version()`.
    pub fn version(version: &str) -> Self {
        Self::replace(
            "pg_catalog.version()",
            &format!("'{version}'::pg_catalog.text"),
        )
    }

    /// A hot standby.
    pub fn standby() -> Self {
        Self::replace("pg_catalog.pg_is_in_recovery()", "true")
    }

    /// CockroachDB, whose lock functions return true and lock nothing.
    pub fn cockroach_db() -> Vec<Self> {
        let version = "CockroachDB CCL v25.4.0 (x86_64-pc-linux-gnu)";
        let mut rules = Self::grant_everything();
        rules.push(Self::setting("crdb_version", version));
        rules.push(Self::version(version));
        rules
    }

    /// YugabyteDB without advisory locks, whose error about that is silenced.
    pub fn yugabyte_db() -> Vec<Self> {
        let setting = "yb_silence_advisory_locks_not_supported_error";
        let mut rules = Self::grant_everything();
        rules.push(Self::setting(setting, "on"));
        rules.push(Self::version("PostgreSQL 11.2-YB-2.20.1.3-b0 on x86_64"));
        rules
    }
}

/// The functions that acquire or release a lock.
const LOCK_FUNCTIONS: [&str; 10] = [
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
];

/// Closes its connections when it is dropped.
#[derive(Debug)]
pub struct FakeServer {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    rules: Vec<Rule>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    sockets: Vec<TcpStream>,
}

impl FakeServer {
    /// Starts a server with these differences from the test server.
    pub fn start(rules: impl Into<Vec<Rule>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: server_of(&url()),
            rules: rules.into(),
            state: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.lock().closed {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // The end of a connection is an error of its sockets.
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        with_parameters(&with_port(&url(), self.port), "sslmode=disable")
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(&self.server)?;
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
            self.lock().sockets.push(socket.try_clone()?);
        }
        match read_first(&mut client)? {
            FirstMessage::Cancel(bytes) => return server.write_all(&bytes),
            FirstMessage::StartUp(bytes) => server.write_all(&bytes)?,
        }
        let (mut replies, mut to_client) = (server.try_clone()?, client.try_clone()?);
        let replies_rule = self.rules.iter().find_map(|rule| match rule {
            Rule::DelayReadyAfterError { .. } | Rule::EndSessionAfter { .. } => Some(rule.clone()),
            _ => None,
        });
        let ending = Arc::new(AtomicBool::new(false));
        let is_ending = Arc::clone(&ending);
        thread::spawn(move || {
            let _ = match replies_rule {
                Some(Rule::DelayReadyAfterError { pause }) => {
                    delay_ready_after_error(replies, &mut to_client, pause)
                }
                Some(Rule::EndSessionAfter { code, .. }) => {
                    end_session_after(replies, &mut to_client, &code, &is_ending)
                }
                _ => io::copy(&mut replies, &mut to_client).map(drop),
            };
            let _ = to_client.shutdown(Shutdown::Both);
        });
        let forwarded = self.forward(&client, &mut server, &ending);
        let _ = server.shutdown(Shutdown::Both);
        forwarded
    }

    /// Forwards the client's messages until one of them ends.
    fn forward(
        &self,
        mut client: &TcpStream,
        server: &mut TcpStream,
        ending: &AtomicBool,
    ) -> io::Result<()> {
        let mut messages = BufReader::new(client);
        loop {
            let mut message = Message::read(&mut messages)?;
            if let Some(sql) = message.sql().map(str::to_owned) {
                let ends = |rule: &Rule| matches!(rule, Rule::EndSessionAfter { text, .. } if sql.contains(text));
                if self.rules.iter().any(ends) {
                    ending.store(true, Ordering::SeqCst);
                }
                match self.apply_rules(sql) {
                    Ok(sql) => message.set_sql(&sql),
                    Err(code) => return error_response("FATAL", &code).write(&mut client),
                }
            }
            message.write(server)?;
        }
    }

    /// Returns the text for the server, or the code with which the session ends.
    fn apply_rules(&self, mut sql: String) -> Result<String, String> {
        for rule in &self.rules {
            match rule {
                Rule::Replace { text, by } => sql = sql.replace(text, by),
                Rule::EndSession { text, code } if sql.contains(text) => return Err(code.clone()),
                Rule::EndSession { .. }
                | Rule::EndSessionAfter { .. }
                | Rule::DelayReadyAfterError { .. } => {}
            }
        }
        Ok(sql)
    }
}

/// Forwards the server's messages until one of the sockets ends.
fn delay_ready_after_error(
    replies: TcpStream,
    client: &mut TcpStream,
    pause: Duration,
) -> io::Result<()> {
    let mut replies = BufReader::new(replies);
    let mut failed = false;
    loop {
        let message = Message::read(&mut replies)?;
        match message.kind {
            b'E' => failed = true,
            b'Z' if std::mem::take(&mut failed) => thread::sleep(pause),
            _ => {}
        }
        message.write(client)?;
    }
}

/// Forwards the server's messages until one of the sockets ends. While the session is ending, an
/// error follows the next `ReadyForQuery`, in one write.
fn end_session_after(
    replies: TcpStream,
    client: &mut TcpStream,
    code: &str,
    is_ending: &AtomicBool,
) -> io::Result<()> {
    let mut replies = BufReader::new(replies);
    loop {
        let message = Message::read(&mut replies)?;
        let mut bytes = Vec::new();
        message.write(&mut bytes)?;
        let ends = message.kind == b'Z' && is_ending.load(Ordering::SeqCst);
        if ends {
            error_response("FATAL", code).write(&mut bytes)?;
        }
        client.write_all(&bytes)?;
        if ends {
            return Ok(());
        }
    }
}
