//! Files of connection parameters: the [service file] and the [password file].
//!
//! [password file]: https://www.postgresql.org/docs/current/libpq-pgpass.html
//! [service file]: https://www.postgresql.org/docs/current/libpq-pgservice.html

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::keywords::{Keywords, insert};
use crate::output::message;

/// Returns a file in the user's home directory.
pub(super) fn in_home(name: &str) -> Option<PathBuf> {
    let home = std::env::home_dir()?;
    Some(home.join(name))
}

/// Reads the section of a service from the first of these files that has it.
pub(super) fn read_service(service: &str, files: &[PathBuf]) -> Result<Keywords, String> {
    for file in files {
        // Another file may name another server, so only a file that does not exist is skipped.
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(_) if !file.exists() => continue,
            Err(error) => return Err(format!("the service file {}: {error}", file.display())),
        };
        // Its other sections and comments may be in any encoding.
        let text = String::from_utf8_lossy(&bytes);
        if let Some(keywords) = service_section(&text, service)? {
            return Ok(keywords);
        }
    }
    let names: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    Err(format!(
        "the service {service:?} is in none of: {}",
        names.join(", ")
    ))
}

fn service_section(text: &str, service: &str) -> Result<Option<Keywords>, String> {
    let mut found: Option<Keywords> = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let rest = section.strip_prefix(service);
            if rest.is_some_and(|rest| rest.starts_with(']')) {
                found = Some(Keywords::new());
            }
        } else if let Some(keywords) = &mut found {
            if line.contains(char::REPLACEMENT_CHARACTER) {
                return Err(format!(
                    "the service {service:?} has a line that is not UTF-8"
                ));
            }
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| format!("the service {service:?} has a line without ="))?;
            let name = name.trim();
            if name == "service" {
                return Err(format!("the service {service:?} names another service"));
            }
            // As with libpq, the first line counts.
            if !keywords.contains_key(name) {
                insert(keywords, name, value.trim().to_owned())?;
            }
        }
    }
    Ok(found)
}

/// Fields of a line of the password file before the password.
#[derive(Debug)]
pub(super) struct PasswordFor<'a> {
    /// Names of the host. A line has one of them.
    pub(super) hosts: [&'a str; 2],
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// Returns the password of the first line that matches. As with libpq, a file that other users may
/// read is ignored.
pub(super) fn read_password(file: &Path, wanted: &PasswordFor<'_>) -> Option<Vec<u8>> {
    let metadata = fs::metadata(file).ok()?;
    if !metadata.is_file() {
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        let file = file.display();
        message(&format!(
            "the password file {file} is ignored: its mode must be 0600 or less"
        ));
        return None;
    }
    password_in(&fs::read(file).ok()?, wanted)
}

/// Searches bytes, because the password and the other lines may be in any encoding.
fn password_in(text: &[u8], wanted: &PasswordFor<'_>) -> Option<Vec<u8>> {
    let wanted: [&[&str]; 4] = [
        &wanted.hosts,
        &[wanted.port],
        &[wanted.database],
        &[wanted.user],
    ];
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.starts_with(b"#"))
        .find_map(|line| {
            let mut fields = fields(line).into_iter();
            let matches = wanted.iter().all(|names| {
                let field = fields.next();
                field.is_some_and(|field| {
                    field == b"*" || names.iter().any(|name| field == name.as_bytes())
                })
            });
            let password = fields.next()?;
            matches.then_some(password)
        })
}

/// Splits a line at its colons. A backslash escapes a colon or a backslash. As in libpq, one at the
/// end of the line is a part of the password.
fn fields(line: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = vec![Vec::new()];
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, fields.last_mut()) {
            (b':', _) => fields.push(Vec::new()),
            (b'\\', Some(field)) => field.push(bytes.next().unwrap_or(byte)),
            (byte, Some(field)) => field.push(byte),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_matching_line_of_the_password_file_counts() {
        let text = b"# h:5432:d:u:comment\nother:*:*:*:no\nh:5432:*:u:a\\:b\\\\c\n*:*:*:*:last\n";
        let wanted = |host, port| PasswordFor {
            hosts: [host, "localhost"],
            port,
            database: "d",
            user: "u",
        };
        let password = |text: &[u8], port| password_in(text, &wanted("h", port));
        assert_eq!(password(text, "5432").unwrap(), b"a:b\\c");
        assert_eq!(password(text, "1").unwrap(), b"last");
        assert_eq!(password(b"h:1:d:u", "1"), None);
        // As in libpq.
        for text in [
            &b"localhost:1:d:u:Z\xfcrich\\\r\n"[..],
            b"h:1:d:u:Z\xfcrich\\",
        ] {
            assert_eq!(password(text, "1").unwrap(), b"Z\xfcrich\\");
        }
    }

    #[test]
    fn service_is_read_from_its_section() {
        let text = "[a]\nhost=x\n\n# comment\n[b]\nhost = y\nport=5\n[c]\nhost=z\n";
        let section = service_section(text, "b").unwrap().unwrap();
        assert_eq!((&*section["host"], &*section["port"]), ("y", "5"));
        assert_eq!(service_section(text, "d"), Ok(None));
        for section in ["[a]\nnonsense\n", "[a]\nservice=b\n"] {
            assert!(service_section(section, "a").is_err(), "{section}");
        }
    }

    #[test]
    fn first_line_of_a_keyword_in_a_service_counts() {
        let text = "[ab]\nhost=no\n[a] # text\nhost=x\nport=5\nhost=y\n";
        let section = service_section(text, "a").unwrap().unwrap();
        assert_eq!((&*section["host"], &*section["port"]), ("x", "5"));
    }
}
