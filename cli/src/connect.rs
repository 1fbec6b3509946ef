//! Connections to the server.
//!
//! # Implementation details
//!
//! The program opens the socket itself, because a command inherits it, and tokio-postgres 0.7 does
//! not show the sockets that it opens. Every host, every address of its name and every way to
//! encrypt is tried in order, until one answers.

mod cancel;
mod files;
mod hosts;
mod keywords;
pub(crate) mod settings;
mod socket;
mod tls;

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode as ClientSslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(crate) use self::cancel::Canceller;
use self::hosts::Host;
use self::settings::{Settings, SslMode};
use self::socket::Address;
use crate::exit_code::Code;
use crate::failure::{Failure, causes, code_of_sqlstate};

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The task that reads and writes. It ends with the session, and returns the reason if that was
    /// an error.
    pub(crate) task: JoinHandle<Option<String>>,
    /// A duplicate of the socket, which the program does not read or write.
    pub(crate) socket: OwnedFd,
    /// The address, for a cancel request.
    target: Target,
}

/// Address and encryption of a connection.
#[derive(Clone, Debug)]
struct Target {
    host: Host,
    address: Address,
}

/// An attempt that failed.
struct Refusal {
    failure: Failure,
    /// `true` if another way to encrypt may help.
    by_encryption: bool,
}

/// Connects to the first host that accepts. As with libpq, no host is tried after one that refuses
/// the role or the password, and a failure names each host.
pub(crate) async fn connect(settings: &Settings, application: &str) -> Result<Connection, Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    for host in &settings.hosts {
        let addresses = match socket::addresses(host).await {
            Ok(addresses) => addresses,
            Err(error) => {
                let text = format!("cannot resolve the host {:?}: {error}", host.name);
                failures.push(Failure::new(Code::UNAVAILABLE, text));
                continue;
            }
        };
        for address in addresses {
            let target = Target {
                host: host.clone(),
                address,
            };
            match connect_to(settings, application, &target).await {
                Ok(connection) => match check(settings, &connection.client).await {
                    Ok(true) => return Ok(connection),
                    Ok(false) => {
                        let text =
                            format!("{}: target_session_attrs is not satisfied", target.address);
                        failures.push(Failure::new(Code::UNFIT, text));
                    }
                    // As with libpq, the next host may answer.
                    Err(Failure { code, text }) => {
                        failures.push(Failure::new(code, format!("{}: {text}", target.address)));
                    }
                },
                Err(failure) => {
                    let is_refused = failure.code == Code::REFUSED;
                    failures.push(failure);
                    if is_refused {
                        return Err(joined(failures));
                    }
                }
            }
        }
    }
    Err(joined(failures))
}

/// Joins the failures of all hosts, or of all ways to encrypt. The last one decides the exit code.
fn joined(failures: Vec<Failure>) -> Failure {
    let code = failures.last().map_or(Code::UNAVAILABLE, |last| last.code);
    let texts: Vec<String> = failures.into_iter().map(|failure| failure.text).collect();
    Failure::new(code, texts.join("; "))
}

/// Connects to one address, with the encryption that `sslmode` allows, in its order.
async fn connect_to(
    settings: &Settings,
    application: &str,
    target: &Target,
) -> Result<Connection, Failure> {
    let modes: &[ClientSslMode] = match settings.ssl_mode {
        // libpq does not encrypt a Unix-domain socket.
        _ if target.host.is_socket_directory() => &[ClientSslMode::Disable],
        SslMode::Disable => &[ClientSslMode::Disable],
        SslMode::Allow => &[ClientSslMode::Disable, ClientSslMode::Require],
        SslMode::Prefer => &[ClientSslMode::Prefer, ClientSslMode::Disable],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[ClientSslMode::Require],
    };
    let mut failures: Vec<Failure> = Vec::new();
    for mode in modes {
        let attempt = attempt(settings, application, target, *mode);
        let result = match settings.connect_timeout {
            Some(limit) => timeout(limit, attempt)
                .await
                .unwrap_or_else(|_| Err(timed_out(limit))),
            None => attempt.await,
        };
        match result {
            Ok(connection) => return Ok(connection),
            Err(refusal) => {
                // A server without TLS refuses both ways with the same text.
                if failures
                    .last()
                    .is_none_or(|last| last.text != refusal.failure.text)
                {
                    failures.push(refusal.failure);
                }
                if !refusal.by_encryption {
                    break;
                }
            }
        }
    }
    let failure = joined(failures);
    Err(Failure::new(
        failure.code,
        format_args!("cannot connect to {}: {}", target.address, failure.text),
    ))
}

fn timed_out(limit: Duration) -> Refusal {
    let text = format!("no answer within {limit:?} (connect_timeout)");
    Refusal {
        failure: Failure::new(Code::UNAVAILABLE, text),
        by_encryption: false,
    }
}

async fn attempt(
    settings: &Settings,
    application: &str,
    target: &Target,
    mode: ClientSslMode,
) -> Result<Connection, Refusal> {
    let mut config = config(settings, application, &target.host);
    config.ssl_mode(mode);
    let opened = socket::open(&target.address, settings).await;
    let io = |error: std::io::Error| Refusal {
        failure: Failure::new(Code::UNAVAILABLE, error),
        by_encryption: false,
    };
    match opened.map_err(io)? {
        socket::Stream::Unix(stream) => start(&config, target, stream, NoTls).await,
        socket::Stream::Tcp(stream) if mode == ClientSslMode::Disable => {
            start(&config, target, stream, NoTls).await
        }
        socket::Stream::Tcp(stream) => {
            let tls = tls_for(connector(settings)?, target);
            start(&config, target, stream, tls).await
        }
    }
}

fn connector(settings: &Settings) -> Result<MakeRustlsConnect, Refusal> {
    tls::connector(settings).map_err(|text| Refusal {
        failure: Failure::usage(text),
        by_encryption: false,
    })
}

/// Returns the settings that tokio-postgres sends to the server.
fn config(settings: &Settings, application: &str, host: &Host) -> Config {
    let mut config = Config::new();
    config.ssl_negotiation(settings.ssl_negotiation);
    config.channel_binding(settings.channel_binding);
    let user = settings.user();
    if let Some(user) = &user {
        config.user(user);
    }
    // As in libpq, a database has the name of the role by default.
    if let Some(database) = settings.get("dbname").or(user.as_deref()) {
        config.dbname(database);
    }
    // Without one, the client would fail by itself, and the failure would look like one of the
    // network. The server refuses an empty password.
    config.password(settings.password(host).unwrap_or_default());
    if let Some(options) = settings.get("options") {
        config.options(options);
    }
    let set = settings.get("application_name");
    config.application_name(
        set.or(settings.get("fallback_application_name"))
            .unwrap_or(application),
    );
    config
}

/// A stream whose descriptor can be duplicated.
trait Socket: AsyncRead + AsyncWrite + std::os::fd::AsFd + Unpin + Send + 'static {}
impl Socket for TcpStream {}
impl Socket for UnixStream {}

/// Authenticates, and starts the task of the connection.
async fn start<S, T>(
    config: &Config,
    target: &Target,
    stream: S,
    tls: T,
) -> Result<Connection, Refusal>
where
    S: Socket,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let socket = fcntl_dupfd_cloexec(&stream, 0).map_err(|error| Refusal {
        failure: Failure::new(Code::UNAVAILABLE, error),
        by_encryption: false,
    })?;
    let (client, connection) = config
        .connect_raw(stream, tls)
        .await
        .map_err(|error| refusal(&error, config))?;
    let task = tokio::spawn(async move { connection.await.err().map(|error| causes(&error)) });
    Ok(Connection {
        client,
        task,
        socket,
        target: target.clone(),
    })
}

fn refusal(error: &tokio_postgres::Error, config: &Config) -> Refusal {
    let code = error.code();
    let mut text = causes(error);
    if code == Some(&SqlState::INVALID_PASSWORD) && config.get_password() == Some(b"") {
        text.push_str("; no password is set");
    }
    Refusal {
        failure: Failure::new(code.map_or(Code::UNAVAILABLE, code_of_sqlstate), text),
        // The handshake failed, pg_hba.conf has no line for this encryption, or PgBouncer requires
        // TLS.
        by_encryption: code.is_none_or(|code| ["28000", "08P01"].contains(&code.code())),
    }
}

/// Calls [`fits`] within the `connect_timeout`.
async fn check(settings: &Settings, client: &Client) -> Result<bool, Failure> {
    let fits = fits(settings, client);
    match settings.connect_timeout {
        Some(limit) => timeout(limit, fits)
            .await
            .unwrap_or_else(|_| Err(timed_out(limit).failure)),
        None => fits.await,
    }
}

/// Returns `true` if the server satisfies [`target_session_attrs`].
///
/// [`target_session_attrs`]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS
async fn fits(settings: &Settings, client: &Client) -> Result<bool, Failure> {
    let wanted = match settings.get("target_session_attrs") {
        None | Some("any" | "prefer-standby") => return Ok(true),
        Some(wanted) => wanted,
    };
    let statement = "SELECT pg_catalog.pg_is_in_recovery(), \
                     pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool";
    let row = client.query_one(statement, &[]).await?;
    let (standby, read_only): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    match wanted {
        "read-write" => Ok(!standby && !read_only),
        "read-only" => Ok(standby || read_only),
        "primary" => Ok(!standby),
        "standby" => Ok(standby),
        other => Err(Failure::usage(format_args!(
            "target_session_attrs {other:?} does not exist"
        ))),
    }
}

type Tls = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::TlsConnect;

fn tls_for(mut connector: MakeRustlsConnect, target: &Target) -> Tls {
    let Ok(tls) = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, &target.host.name);
    tls
}
