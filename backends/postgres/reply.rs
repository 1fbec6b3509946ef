//! The row of a [`Statement`](super::Statement), and its two readings.

use super::{ServerSigns, SessionError};

/// A column of a [`Row`].
///
/// The types that share a representation share a variant.
#[expect(
    clippy::exhaustive_enums,
    reason = "an adapter must be able to return every value"
)]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Cell {
    /// A null, or a column that the statement does not return.
    #[default]
    Null,
    /// A `bool` (0 or 1), an `int4`, an `int8`, or the microseconds of a `timestamptz`.
    Number(i64),
    /// An `int8[]`.
    Numbers(Vec<Option<i64>>),
    /// A `text[]`.
    Texts(Vec<Option<String>>),
}

impl Cell {
    /// Reads a number in the binary format, by its length: one byte is a `bool`, four are an
    /// `int4`, eight are an `int8` or a `timestamptz`. `None` for an array, whose header has 12
    /// bytes.
    #[cfg(any(test, feature = "_postgres"))]
    pub(crate) fn from_binary(bytes: &[u8]) -> Option<Self> {
        Some(Self::Number(match *bytes {
            [byte] => byte.into(),
            [a, b, c, d] => i32::from_be_bytes([a, b, c, d]).into(),
            [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => return None,
        }))
    }

    /// Reads a column of a [simple query](super::Statement::simple_sql). Hexadecimal digits are
    /// those of an `int8` in the binary format, without a sign.
    #[cfg(any(test, feature = "_sqlx-postgres", feature = "_rust-postgres"))]
    pub(crate) fn from_text(text: &str, is_hexadecimal: bool) -> Option<Self> {
        let number = match text {
            "t" => 1,
            "f" => 0,
            _ if is_hexadecimal => {
                i64::from_be_bytes(u64::from_str_radix(text, 16).ok()?.to_be_bytes())
            }
            _ => text.parse().ok()?,
        };
        Some(Self::Number(number))
    }

    fn number(self) -> Result<Option<i64>, SessionError> {
        match self {
            Self::Null => Ok(None),
            Self::Number(number) => Ok(Some(number)),
            Self::Numbers(_) | Self::Texts(_) => Err(unexpected("an array")),
        }
    }

    fn signs(self) -> Result<ServerSigns, SessionError> {
        // A compensation returns no signs: its session was checked when it was opened.
        let bits = self.number()?.unwrap_or_default().try_into();
        bits.map_or_else(
            |_| Err(unexpected("no signs of the server")),
            |bits| Ok(ServerSigns::from_bits(bits)),
        )
    }

    fn pid(self) -> Result<i32, SessionError> {
        let pid = self.number()?.and_then(|number| number.try_into().ok());
        pid.ok_or_else(|| unexpected("no process id"))
    }

    fn numbers(self) -> Result<Option<Vec<Option<i64>>>, SessionError> {
        match self {
            Self::Null => Ok(None),
            Self::Numbers(numbers) => Ok(Some(numbers)),
            Self::Number(_) | Self::Texts(_) => Err(unexpected("a number or texts")),
        }
    }
}

#[cold]
fn unexpected(found: &str) -> SessionError {
    SessionError::new(format!("a lock statement returned {found}"))
}

/// The row that a [`Statement`](super::Statement) returns. An adapter fills in the columns and does
/// not interpret them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Row([Cell; 4]);

impl Row {
    /// The greatest number of columns.
    pub const COLUMNS: usize = 4;

    /// Returns a row of these columns. Columns that the statement does not return are
    /// [`Null`](Cell::Null).
    #[must_use]
    pub const fn new(columns: [Cell; Self::COLUMNS]) -> Self {
        Self(columns)
    }

    /// The texts of a report. A null is a report without rows.
    pub(crate) fn into_texts(self) -> Result<Vec<Option<String>>, SessionError> {
        let Self([texts, ..]) = self;
        match texts {
            Cell::Null => Ok(Vec::new()),
            Cell::Texts(texts) => Ok(texts),
            Cell::Number(_) | Cell::Numbers(_) => Err(unexpected("no array of texts")),
        }
    }

    /// Returns whether the first column is false.
    #[cfg(feature = "_sqlx-postgres")]
    pub(crate) fn is_false(&self) -> bool {
        matches!(self.0.first(), Some(Cell::Number(0)))
    }

    /// The process id in a [column](super::Statement::pid_column).
    #[cfg(feature = "_sqlx-postgres")]
    pub(crate) fn pid_in(&self, column: usize) -> Option<i32> {
        match self.0.get(column) {
            Some(Cell::Number(pid)) => (*pid).try_into().ok(),
            _ => None,
        }
    }
}

/// The reply to a statement about one lock.
#[expect(
    clippy::exhaustive_structs,
    reason = "a session without SQL builds it and converts it into a row"
)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LockReply {
    /// The first column. Its meaning depends on the [`StatementKind`](super::StatementKind).
    pub answer: Option<bool>,
    /// The second column: the process id of the session that ran the statement.
    pub pid: i32,
    /// The third column: the start of the transaction in which the statement ran, in microseconds
    /// since 2000-01-01 UTC.
    ///
    /// Outside a transaction every statement is a transaction of its own.
    pub transaction_began: i64,
    /// The refused signs of the server, which an attempt returns instead of its answer.
    pub server_signs: ServerSigns,
}

impl TryFrom<Row> for LockReply {
    type Error = SessionError;

    fn try_from(Row([answer, pid, began, _]): Row) -> Result<Self, SessionError> {
        let began = began.number()?;
        let (answer, server_signs) = match answer {
            Cell::Number(answer @ (0 | 1)) => (Some(answer == 1), ServerSigns::NONE),
            // No sign has the number 0 or 1, so a sign is never taken for an answer.
            signs => (None, signs.signs()?),
        };
        Ok(Self {
            answer,
            pid: pid.pid()?,
            transaction_began: began.ok_or_else(|| unexpected("no transaction start"))?,
            server_signs,
        })
    }
}

impl From<LockReply> for Row {
    fn from(reply: LockReply) -> Self {
        Self([
            match (reply.server_signs, reply.answer) {
                (ServerSigns::NONE, None) => Cell::Null,
                (ServerSigns::NONE, Some(yes)) => Cell::Number(yes.into()),
                (signs, _) => Cell::Number(signs.bits().into()),
            },
            Cell::Number(reply.pid.into()),
            Cell::Number(reply.transaction_began),
            Cell::Null,
        ])
    }
}

/// The reply to a [`LockBatch`](super::LockBatch).
#[expect(
    clippy::exhaustive_structs,
    reason = "a session without SQL builds it and converts it into a row"
)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BatchReply {
    /// The answer to each operation, in order. `None` if the batch has no operations, or if another
    /// session than the expected one ran the statement, which did nothing then.
    ///
    /// The answer to one operation is `None` if the lock was not granted or not held. Otherwise it
    /// is the fencing token, if a sequence issues tokens and the operation wants one, or 1.
    pub answers: Option<Vec<Option<i64>>>,
    /// The transaction's id, which is the fencing token of every operation that wants one.
    ///
    /// If a sequence issues tokens, 1 if the sequence is valid. 0 if it may return a number twice
    /// or count down. Then no operation that wants a token was granted.
    pub token: Option<i64>,
    /// The process id of the session that ran the statement. 0: unknown, and not the expected one.
    pub pid: i32,
    /// The signs of the server. The statement for one operation does not return them.
    pub server_signs: ServerSigns,
}

impl BatchReply {
    /// Reads the row of a batch that expects the session `pid`.
    ///
    /// The statement for one operation returns one column, a nullable `bool`. Null: another session
    /// than `pid` ran it. The statement for any batch returns the four fields.
    ///
    /// # Errors
    ///
    /// If a column has another type.
    pub fn from_row(row: Row, pid: i32) -> Result<Self, SessionError> {
        match row {
            Row([granted, Cell::Null, Cell::Null, Cell::Null]) => {
                let granted = granted.number()?.map(|number| number != 0);
                Ok(Self {
                    answers: granted.map(|granted| vec![granted.then_some(1)]),
                    token: None,
                    // No session has the process id 0, so the reader finds another session than the
                    // expected one.
                    pid: granted.map_or(0, |_| pid),
                    server_signs: ServerSigns::NONE,
                })
            }
            Row([answers, token, pid, signs]) => Ok(Self {
                answers: answers.numbers()?,
                token: token.number()?,
                pid: pid.pid()?,
                server_signs: signs.signs()?,
            }),
        }
    }
}

impl From<BatchReply> for Row {
    fn from(reply: BatchReply) -> Self {
        Self([
            reply.answers.map_or(Cell::Null, Cell::Numbers),
            reply.token.map_or(Cell::Null, Cell::Number),
            Cell::Number(reply.pid.into()),
            Cell::Number(reply.server_signs.bits().into()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width_are_read() {
        let read = Cell::from_binary;
        assert_eq!(read(&[1]), Some(Cell::Number(1)));
        for pid in [0, 1, 0x0102_0304, i32::MAX, -1, i32::MIN] {
            assert_eq!(read(&pid.to_be_bytes()), Some(Cell::Number(pid.into())));
        }
        for time in [0, 1, 0x0102_0304_0506_0708, i64::MAX, -1, i64::MIN] {
            assert_eq!(read(&time.to_be_bytes()), Some(Cell::Number(time)));
        }
        for bytes in [[].as_slice(), &[0; 3], &[0; 9], &[0; 20]] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn numbers_of_a_simple_query_are_read() {
        for (text, is_hexadecimal, number) in [
            ("t", false, Some(1)),
            ("f", false, Some(0)),
            ("12345", false, Some(12345)),
            ("-9223372036854775808", false, Some(i64::MIN)),
            ("9223372036854775808", false, None),
            ("0000000000000010", true, Some(16)),
            ("fffffffffffffffe", true, Some(-2)),
            ("", false, None),
            ("x", true, None),
        ] {
            let read = Cell::from_text(text, is_hexadecimal);
            assert_eq!(read, number.map(Cell::Number), "{text}");
        }
    }

    #[test]
    fn lock_reply_survives_the_row() {
        for answer in [None, Some(false), Some(true)] {
            let reply = LockReply {
                answer,
                pid: 7,
                transaction_began: i64::MIN,
                server_signs: ServerSigns::NONE,
            };
            assert_eq!(LockReply::try_from(Row::from(reply)).unwrap(), reply);
            let refused = LockReply {
                answer: None,
                server_signs: ServerSigns::STANDBY,
                ..reply
            };
            assert_eq!(LockReply::try_from(Row::from(refused)).unwrap(), refused);
        }
    }

    #[test]
    fn batch_reply_survives_the_row() {
        for answers in [None, Some(vec![Some(1), None])] {
            let reply = BatchReply {
                answers,
                token: Some(0),
                pid: 7,
                server_signs: ServerSigns::COCKROACH_DB,
            };
            let read = BatchReply::from_row(Row::from(reply.clone()), 8);
            assert_eq!(read.unwrap(), reply);
        }
    }

    #[test]
    fn single_column_is_the_reply_to_one_operation() {
        for (cell, answers, pid) in [
            (Cell::Number(1), Some(vec![Some(1)]), 7),
            (Cell::Number(0), Some(vec![None]), 7),
            (Cell::Null, None, 0),
        ] {
            let row = Row::new([cell, Cell::Null, Cell::Null, Cell::Null]);
            let reply = BatchReply::from_row(row, 7).unwrap();
            assert_eq!(
                (reply.answers, reply.token, reply.pid),
                (answers, None, pid)
            );
        }
    }

    #[test]
    fn column_of_another_type_is_an_error() {
        let array = || Cell::Numbers(Vec::new());
        let pid = || Cell::Number(7);
        for row in [
            Row::new([array(), pid(), pid(), pid()]),
            Row::new([pid(), Cell::Null, pid(), pid()]),
            Row::new([pid(), Cell::Number(i64::MAX), pid(), pid()]),
            Row::new([pid(), pid(), Cell::Null, pid()]),
            Row::new([Cell::Number(i64::MAX), pid(), pid(), Cell::Null]),
        ] {
            assert!(LockReply::try_from(row.clone()).is_err(), "{row:?}");
        }
        let number = Row::new([pid(), Cell::Null, pid(), pid()]);
        assert!(BatchReply::from_row(number, 7).is_err());
    }
}
