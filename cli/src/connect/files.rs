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
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            if found.is_some() {
                break;
            }
            if section == service {
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
            insert(keywords, name.trim(), value.trim().to_owned())?;
        }
    }
    Ok(found)
}

/// Fields of a line of the password file before the password.
#[derive(Debug)]
pub(super) struct PasswordFor<'a> {
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// Returns the password of the first line that matches. As with libpq, a file that other users may
/// read is ignored.
pub(super) fn read_password(file: &Path, wanted: &PasswordFor<'_>) -> Option<String> {
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
    // Its other lines may be in any encoding.
    password_in(&String::from_utf8_lossy(&fs::read(file).ok()?), wanted)
}

fn password_in(text: &str, wanted: &PasswordFor<'_>) -> Option<String> {
    let wanted = [wanted.host, wanted.port, wanted.database, wanted.user];
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut fields = fields(line).into_iter();
            let matches = wanted.iter().all(|wanted| {
                let field = fields.next();
                field.is_some_and(|field| field == "*" || field == *wanted)
            });
            let password = fields.next()?;
            matches.then_some(password)
        })
}

/// Splits a line at its colons. A backslash escapes a colon or a backslash.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(chars.next()),
            (c, Some(field)) => field.push(c),
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
        let text = "# h:5432:d:u:comment\nother:*:*:*:no\nh:5432:*:u:a\\:b\\\\c\n*:*:*:*:last\n";
        let wanted = |host, port| PasswordFor {
            host,
            port,
            database: "d",
            user: "u",
        };
        assert_eq!(password_in(text, &wanted("h", "5432")).unwrap(), "a:b\\c");
        assert_eq!(password_in(text, &wanted("h", "1")).unwrap(), "last");
        assert_eq!(password_in("h:1:d:u", &wanted("h", "1")), None);
    }

    #[test]
    fn service_is_read_from_its_section() {
        let text = "[a]\nhost=x\n\n# comment\n[b]\nhost = y\nport=5\n[c]\nhost=z\n";
        let section = service_section(text, "b").unwrap().unwrap();
        assert_eq!((&*section["host"], &*section["port"]), ("y", "5"));
        assert_eq!(service_section(text, "d"), Ok(None));
        assert!(service_section("[a]\nnonsense\n", "a").is_err());
    }
}
