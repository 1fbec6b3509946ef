//! Hosts of a connection string.

use std::path::{Path, PathBuf};

/// Address of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Host {
    /// A name, an address, or the directory of a Unix-domain socket. As in libpq, `@` begins an
    /// abstract one.
    pub(crate) name: String,
    /// The address to connect to, instead of the name.
    pub(crate) address: Option<String>,
    pub(crate) port: u16,
}

impl Host {
    pub(crate) fn is_socket_directory(&self) -> bool {
        self.address.is_none() && self.name.starts_with(['/', '@'])
    }
}

/// Directories of sockets, of Debian and of PostgreSQL itself.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Returns the path of a Unix-domain socket.
pub(super) fn socket_of(directory: &str, port: u16) -> PathBuf {
    Path::new(directory).join(format!(".s.PGSQL.{port}"))
}

/// Returns the hosts of the lists of names, addresses and ports.
pub(super) fn hosts(
    names: Option<&str>,
    addresses: Option<&str>,
    ports: Option<&str>,
) -> Result<Vec<Host>, String> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.map_or_else(Vec::new, |text| {
            text.split(',').map(str::to_owned).collect()
        })
    };
    let (names, addresses, ports) = (list(names), list(addresses), list(ports));
    let count = names.len().max(addresses.len());
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err("host and hostaddr have different numbers of entries".to_owned());
    }
    if ports.len() > 1 && ports.len() != count.max(1) {
        return Err("host and port have different numbers of entries".to_owned());
    }
    let port = |index: usize| -> Result<u16, String> {
        let text = ports
            .get(index)
            .or_else(|| ports.first().filter(|_| ports.len() == 1));
        match text.map(|text| text.trim()).filter(|text| !text.is_empty()) {
            // Not quoted: in a URL, it may be a part of the password.
            Some(text) => text.parse().map_err(|_| {
                "a port is not a number up to 65535: in a password, / is written %2F".to_owned()
            }),
            None => Ok(5432),
        }
    };
    // An entry without a name and an address is the default, and so is no entry.
    (0..count.max(1))
        .map(|index| {
            let address = addresses
                .get(index)
                .filter(|text| !text.is_empty())
                .cloned();
            let name = names.get(index).filter(|text| !text.is_empty()).cloned();
            let port = port(index)?;
            Ok(Host {
                name: name
                    .or_else(|| address.clone())
                    .unwrap_or_else(|| default_directory(port).to_owned()),
                address,
                port,
            })
        })
        .collect()
}

/// Returns one directory, as libpq has: the failure of another would hide that of the server.
fn default_directory(port: u16) -> &'static str {
    let [first, ..] = SOCKET_DIRECTORIES;
    let mut directories = SOCKET_DIRECTORIES.into_iter();
    let has_socket = |directory: &&str| socket_of(directory, port).exists();
    directories.find(has_socket).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_host_is_the_directory_with_a_socket() {
        // No server listens there, because the port is privileged.
        let port = 1 + u16::try_from(std::process::id() % 1_000).unwrap();
        let names_of = |names: Option<&str>| -> Vec<String> {
            let hosts = hosts(names, None, Some(&port.to_string())).unwrap();
            hosts.into_iter().map(|host| host.name).collect()
        };
        let names = || names_of(None);
        let socket = socket_of("/tmp", port);
        // That of an earlier run that was killed.
        let _ = std::fs::remove_file(&socket);
        assert_eq!(names(), ["/var/run/postgresql"]);
        std::fs::write(&socket, "").unwrap();
        assert_eq!(names(), ["/tmp"]);
        // As in libpq, an empty entry, too.
        assert_eq!(names_of(Some("h,")), ["h", "/tmp"]);
        std::fs::remove_file(socket).unwrap();
    }
}
