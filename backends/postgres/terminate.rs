//! The statements that terminate a session.

use super::SessionError;

/// The statements of a [`TerminateSequence`]. They are sent one after the other, whatever the
/// replies.
///
/// | statement | case |
/// |---|---|
/// | [`pg_terminate_backend`] | ends the session, unless its transaction is aborted |
/// | `ROLLBACK`, then the same | ends a session in an aborted transaction |
/// | [`pg_advisory_unlock_all`] | releases every lock where the server forbids the others |
///
/// [`pg_terminate_backend`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
/// [`pg_advisory_unlock_all`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS
pub(crate) const TERMINATE_STATEMENTS: [&str; 3] = [
    "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())",
    "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())",
    "SELECT pg_catalog.pg_advisory_unlock_all()",
];

/// Repeats the [statements](TERMINATE_STATEMENTS) until one succeeds, because a cancel request that
/// was meant for another statement may hit any of them.
#[derive(Debug, Default)]
pub(crate) struct TerminateSequence {
    sent: usize,
}

impl TerminateSequence {
    /// Far more passes than were ever needed while tests sent cancel requests without a pause. A
    /// server that refuses every statement ends the sequence.
    const MAX_PASSES: usize = 16;

    /// Returns the next statement, given the reply to the previous one. `None`: the session has
    /// ended or holds no lock.
    pub(crate) fn next(&mut self, last: Option<Result<(), SessionError>>) -> Option<&'static str> {
        let done = match last {
            None => false,
            // The end of a session arrives as an error, so success means something for the last
            // statement of a pass only.
            Some(Ok(())) => self.sent % TERMINATE_STATEMENTS.len() == 0,
            Some(Err(error)) => error.is_disconnected(),
        };
        let all = TERMINATE_STATEMENTS.iter().cycle();
        let all = all.take(Self::MAX_PASSES * TERMINATE_STATEMENTS.len());
        let next = all.copied().nth(self.sent).filter(|_| !done);
        self.sent += 1;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements that are sent if each ends like that.
    fn sent_when(mut end: impl FnMut(usize) -> Result<(), SessionError>) -> Vec<&'static str> {
        let (mut sequence, mut last, mut sent) = (TerminateSequence::default(), None, Vec::new());
        while let Some(sql) = sequence.next(last) {
            last = Some(end(sent.len()));
            sent.push(sql);
        }
        sent
    }

    #[test]
    fn terminate_sequence_goes_on_until_a_success() {
        let gone = || Err(SessionError::new("closed").with_disconnected(true));
        let cancelled = || Err(SessionError::new("cancelled"));
        assert_eq!(sent_when(|_| gone()), TERMINATE_STATEMENTS[..1]);
        // The first ended the session, which the client learns by the second.
        assert_eq!(
            sent_when(|sent| if sent == 0 { Ok(()) } else { gone() }),
            TERMINATE_STATEMENTS[..2]
        );
        // The server forbids the first two, so all locks are released.
        let forbids_terminate = |sent| if sent == 2 { Ok(()) } else { cancelled() };
        assert_eq!(sent_when(forbids_terminate), TERMINATE_STATEMENTS);
        let hit_seven_times = |sent| if sent < 7 { cancelled() } else { gone() };
        assert_eq!(sent_when(hit_seven_times).len(), 8);
        assert_eq!(sent_when(|_| cancelled()).len(), 48);
    }
}
