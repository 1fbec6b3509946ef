//! Messages of PostgreSQL's [protocol], for the proxies that read or change them.
//!
//! [protocol]: https://www.postgresql.org/docs/current/protocol-message-formats.html

use std::io::{self, Read, Write};

/// A message after the start-up: a type, then the length of the rest.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) const fn new(kind: u8, body: Vec<u8>) -> Self {
        Self { kind, body }
    }

    /// A simple query.
    pub(crate) fn query(sql: &str) -> Self {
        Self::new(b'Q', text(sql))
    }

    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut kind = [0];
        from.read_exact(&mut kind)?;
        Ok(Self::new(kind[0], read_body(from)?))
    }

    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = vec![self.kind];
        bytes.extend(with_length(&self.body));
        to.write_all(&bytes)
    }

    /// Returns the field that begins at a position and ends with a null byte.
    pub(crate) fn text_at(&self, position: usize) -> &str {
        let rest = &self.body[position..];
        let end = rest.iter().position(|byte| *byte == 0).unwrap();
        std::str::from_utf8(&rest[..end]).unwrap()
    }

    /// Returns the position of the SQL text in a `Query` or a `Parse`.
    fn sql_position(&self) -> Option<usize> {
        match self.kind {
            b'Q' => Some(0),
            b'P' => Some(self.text_at(0).len() + 1),
            _ => None,
        }
    }

    /// Returns the SQL text of a `Query` or a `Parse`.
    pub(crate) fn sql(&self) -> Option<&str> {
        self.sql_position().map(|position| self.text_at(position))
    }

    /// Replaces the SQL text of a `Query` or a `Parse`.
    pub(crate) fn set_sql(&mut self, sql: &str) {
        let position = self.sql_position().unwrap();
        self.replace_text(position, sql);
    }

    /// Replaces the field that begins at a position.
    pub(crate) fn replace_text(&mut self, position: usize, by: &str) {
        let end = position + self.text_at(position).len();
        self.body.splice(position..end, by.bytes());
    }

    /// Returns whether the server answers this message, and those before it, with `ReadyForQuery`.
    pub(crate) const fn ends_request(&self) -> bool {
        matches!(self.kind, b'Q' | b'S')
    }
}

/// The first message of a connection.
#[derive(Debug)]
pub(crate) enum FirstMessage {
    /// A cancel request, with its bytes.
    Cancel(Vec<u8>),
    /// A start-up message, with its bytes.
    StartUp(Vec<u8>),
}

/// Reads the first message. A request for encryption is refused, and the next message is read.
pub(crate) fn read_first(client: &mut (impl Read + Write)) -> io::Result<FirstMessage> {
    const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();
    const TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();
    const GSSAPI: [u8; 4] = 80_877_104_u32.to_be_bytes();
    loop {
        let body = read_body(client)?;
        let bytes = with_length(&body);
        match body.first_chunk() {
            Some(&(TLS | GSSAPI)) => client.write_all(b"N")?,
            Some(&CANCEL) => return Ok(FirstMessage::Cancel(bytes)),
            _ => return Ok(FirstMessage::StartUp(bytes)),
        }
    }
}

/// Returns an error of the server. `severity` is `ERROR` or `FATAL`.
pub(crate) fn error_response(severity: &str, code: &str) -> Message {
    let mut body = Vec::new();
    for (field, value) in [
        (b'S', severity),
        (b'V', severity),
        (b'C', code),
        (b'M', "an error of the test"),
    ] {
        body.push(field);
        body.extend(text(value));
    }
    body.push(0);
    Message::new(b'E', body)
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes(), body].concat()
}

fn read_body(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    let mut body = vec![0; length.saturating_sub(4)];
    from.read_exact(&mut body)?;
    Ok(body)
}
