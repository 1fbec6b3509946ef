//! Sockets, with keep-alives.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::net::sockopt;
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::hosts::{Host, socket_of};
use super::settings::Settings;

/// Address of a socket.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "{}", path.display()),
            Self::Tcp(address) => write!(formatter, "{address}"),
        }
    }
}

/// An open socket.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Returns the addresses of a host.
pub(super) async fn addresses(host: &Host) -> io::Result<Vec<Address>> {
    if host.is_socket_directory() {
        return Ok(vec![Address::Unix(socket_of(&host.name, host.port))]);
    }
    let name = host.address.as_deref().unwrap_or(&host.name);
    Ok(lookup_host((name, host.port))
        .await?
        .map(Address::Tcp)
        .collect())
}

/// Opens a socket.
pub(super) async fn open(address: &Address, settings: &Settings) -> io::Result<Stream> {
    match address {
        Address::Unix(path) => Ok(Stream::Unix(open_unix(path).await?)),
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            keep_alive(&stream, settings)?;
            Ok(Stream::Tcp(stream))
        }
    }
}

/// Opens the socket of a path. The name of an [abstract] one begins with a zero byte, for which the
/// path has an `@`.
///
/// [abstract]: https://man7.org/linux/man-pages/man7/unix.7.html
async fn open_unix(path: &Path) -> io::Result<UnixStream> {
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => {
            let name = [b"\0", name].concat();
            UnixStream::connect(OsStr::from_bytes(&name)).await
        }
        None => UnixStream::connect(path).await,
    }
}

/// Lets the kernel notice a dead network, also after the end of this program: the command inherits
/// the socket.
fn keep_alive(stream: &TcpStream, settings: &Settings) -> io::Result<()> {
    if settings.has_keepalives {
        sockopt::set_socket_keepalive(stream, true)?;
        if let Some(idle) = settings.keepalives_idle {
            sockopt::set_tcp_keepidle(stream, idle)?;
        }
        if let Some(interval) = settings.keepalives_interval {
            sockopt::set_tcp_keepintvl(stream, interval)?;
        }
        if let Some(count) = settings.keepalives_count {
            sockopt::set_tcp_keepcnt(stream, count)?;
        }
    }
    #[cfg(target_os = "linux")]
    if let Some(limit) = settings.tcp_user_timeout {
        let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, millis)?;
    }
    Ok(())
}
