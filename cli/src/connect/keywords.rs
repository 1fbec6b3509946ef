//! Connection strings: URLs and keyword/value texts, as [libpq reads them].
//!
//! [libpq reads them]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING

use std::collections::BTreeMap;

/// Connection parameters by their keywords in libpq.
pub(super) type Keywords = BTreeMap<String, String>;

/// Keywords that change the connection.
const KNOWN: [&str; 29] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "service",
    "servicefile",
    "sslcert",
    "sslcertmode",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Keywords without effect: those of other ways to encrypt, which this program does not use, the
/// encoding, which is always UTF-8, and the greatest version of the protocol. That of the program
/// is 3.0, the least.
const IGNORED: [&str; 6] = [
    "client_encoding",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "sslcompression",
];

/// Reads a URL, keywords with values, or the name of a database.
pub(super) fn parse(text: &str) -> Result<Keywords, String> {
    let url = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    match url {
        Some(rest) => parse_url(rest),
        None if is_url(text) => {
            Err("the URL of a database begins with postgres:// or postgresql://".to_owned())
        }
        None if text.contains('=') => parse_pairs(text),
        None => Ok(Keywords::from([("dbname".to_owned(), text.to_owned())])),
    }
}

/// Returns `true` for the URL of another scheme. The value of a keyword may contain a URL.
fn is_url(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(scheme, _)| !scheme.contains('='))
}

/// Adds a parameter. A parameter that the program cannot honour is an error, because it may be one
/// of security.
pub(super) fn insert(keywords: &mut Keywords, name: &str, value: String) -> Result<(), String> {
    if IGNORED.contains(&name) {
        return Ok(());
    }
    if !KNOWN.contains(&name) {
        return Err(format!(
            "the connection parameter {name:?} is not supported"
        ));
    }
    keywords.insert(name.to_owned(), value);
    Ok(())
}

/// Adds a parameter of a connection string. `is_secret`: its name may be a part of the password.
fn insert_read(
    keywords: &mut Keywords,
    name: &str,
    value: String,
    is_secret: bool,
) -> Result<(), String> {
    let inserted = insert(keywords, name, value);
    inserted.map_err(|text| {
        if is_secret {
            "a connection parameter is not supported, or a password is not escaped".to_owned()
        } else {
            text
        }
    })
}

/// Reads the part of a URL after its scheme.
fn parse_url(rest: &str) -> Result<Keywords, String> {
    let mut keywords = Keywords::new();
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, database) = match rest.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (rest, None),
    };
    let hosts = match authority.rsplit_once('@') {
        Some((user, hosts)) => {
            let (user, password) = match user.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (user, None),
            };
            add_decoded(&mut keywords, "user", user)?;
            add_decoded(&mut keywords, "password", password.unwrap_or_default())?;
            hosts
        }
        None => authority,
    };
    let (names, ports) = hosts_and_ports(hosts)?;
    add_decoded(&mut keywords, "host", &names)?;
    add_decoded(&mut keywords, "port", &ports)?;
    add_decoded(&mut keywords, "dbname", database.unwrap_or_default())?;
    // In a password, ? is written %3F. Otherwise its rest is in the query, with the @.
    let is_secret = query.is_some_and(|query| query.contains('@'));
    for pair in query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair
            .split_once('=')
            .ok_or("a parameter of the URL has no value: in a password, ? is written %3F")?;
        // As JDBC writes it.
        match (name, value) {
            ("ssl", "true") => insert(&mut keywords, "sslmode", "require".to_owned())?,
            _ => insert_read(&mut keywords, &decode(name)?, decode(value)?, is_secret)?,
        }
    }
    Ok(keywords)
}

fn add_decoded(keywords: &mut Keywords, name: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        Ok(())
    } else {
        insert(keywords, name, decode(text)?)
    }
}

/// Splits `a:1,[::1]:2` into `a,::1` and `1,2`.
fn hosts_and_ports(hosts: &str) -> Result<(String, String), String> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (name, rest) = rest.split_once(']').ok_or("the URL has [ without ]")?;
                let is_port = rest.is_empty() || rest.starts_with(':');
                if !is_port {
                    return Err("the URL has a text after ] that is no port".to_owned());
                }
                (name, rest.strip_prefix(':').unwrap_or_default())
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) {
        String::new()
    } else {
        ports.join(",")
    };
    let names = if names.iter().all(|name| name.is_empty()) {
        String::new()
    } else {
        names.join(",")
    };
    Ok((names, ports))
}

/// Decodes `%20`. As all errors of this module, the text quotes no value, which may be a part of
/// the password.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let number = digit().and_then(|high| Some(high * 16 + digit()?));
        let number = number.and_then(|number| u8::try_from(number).ok());
        let without_digits = "the URL has a % without two hexadecimal digits: % is written %25";
        bytes.push(number.ok_or(without_digits)?);
    }
    String::from_utf8(bytes).map_err(|_| "a part of the URL is not UTF-8".to_owned())
}

/// Reads `host=a port='5'`.
fn parse_pairs(text: &str) -> Result<Keywords, String> {
    let mut keywords = Keywords::new();
    let mut chars = text.chars().peekable();
    let mut is_secret = false;
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(keywords);
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            let text = "the connection string has a word without =: a value with spaces is quoted";
            return Err(text.to_owned());
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let is_quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\'') if is_quoted => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) if c.is_whitespace() && !is_quoted => break,
                Some(c) => value.push(c),
                None if is_quoted => {
                    return Err("a quote of the connection string is open".to_owned());
                }
                None => break,
            }
        }
        insert_read(&mut keywords, &name, value, is_secret)?;
        is_secret |= name == "password" && !is_quoted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let keywords = parse(text).unwrap();
        let pairs: Vec<String> = keywords
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join(" ")
    }

    #[test]
    fn url_and_keywords_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            (
                "postgres://u:p%40@h:5433/d",
                "dbname=d host=h password=p@ port=5433 user=u",
            ),
            ("postgresql:///d", "dbname=d"),
            ("postgresql://", ""),
            ("postgresql://a:1,b:2/d", "dbname=d host=a,b port=1,2"),
            ("postgresql://a,b/", "host=a,b"),
            ("postgresql://[::1]:5/d", "dbname=d host=::1 port=5"),
            ("postgresql://%2Frun%2Fpg/d", "dbname=d host=/run/pg"),
            (
                "postgresql:///d?host=/tmp&sslmode=disable",
                "dbname=d host=/tmp sslmode=disable",
            ),
            ("postgresql://h/?ssl=true", "host=h sslmode=require"),
            ("postgresql://h/?max_protocol_version=3.0", "host=h"),
            (
                "host=h  port = 5 password='a b\\'c'",
                "host=h password=a b'c port=5",
            ),
            ("host=h password=a://b", "host=h password=a://b"),
            ("mydb", "dbname=mydb"),
            ("", "dbname="),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn malformed_connection_string_is_an_error() {
        for text in [
            "mysql://h/d",
            "mysql://h/d?a=b",
            "postgres://h/d?requirepeer=postgres",
            "postgres://h/d?sslmode",
            "postgres://%zz/d",
            "postgres://[::1/d",
            "postgres://[::1]5/d",
            "host='open",
            "host=h nonsense",
            "sslcrl=file",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
