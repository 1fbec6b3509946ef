//! The sequence of scripts that terminates a session.

use super::{Script, ScriptKind, SessionError};

/// One script of the sequence that terminates a session.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TerminateStep {
    /// Ends the session by [`pg_terminate_backend`], unless its transaction is aborted.
    ///
    /// [`pg_terminate_backend`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
    EndSession,
    /// Rolls back and then ends the session, for a session in an aborted transaction.
    RollBackAndEndSession,
    /// Releases every session-level lock, for a server that forbids the other steps.
    ReleaseAllLocks,
}

impl TerminateStep {
    /// The steps of one pass, in order.
    pub(crate) const ALL: [Self; 3] = [
        Self::EndSession,
        Self::RollBackAndEndSession,
        Self::ReleaseAllLocks,
    ];

    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Self::EndSession => {
                "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())"
            }
            Self::RollBackAndEndSession => {
                // An aborted transaction accepts no query before its rollback. One message, because
                // a pooler may send the next one to another session.
                "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())"
            }
            Self::ReleaseAllLocks => "SELECT pg_catalog.pg_advisory_unlock_all()",
        }
    }
}

/// The scripts that terminate a session, to be sent one after the other.
///
/// The steps repeat until the client sees that the session has ended, or until the last step of a
/// pass succeeds. They repeat at most [`MAX_PASSES`](Self::MAX_PASSES) times. A cancel request that
/// was meant for another statement may hit any of them.
#[derive(Debug, Default)]
pub(crate) struct TerminateSequence {
    sent: usize,
}

impl TerminateSequence {
    /// Greatest number of passes, for a server that rejects every statement.
    ///
    /// Tests that send cancel requests without a pause need far fewer.
    const MAX_PASSES: usize = 16;

    /// Returns the next script, given the reply to the previous one. `None`: the session has ended
    /// or holds no lock.
    pub(crate) fn next(&mut self, last: Option<Result<(), SessionError>>) -> Option<Script> {
        let done = match last {
            None => false,
            // The end of a session arrives as an error. So only the success of the last step of a
            // pass shows that the session holds no lock.
            Some(Ok(())) => self.sent % TerminateStep::ALL.len() == 0,
            Some(Err(error)) => error.is_disconnected(),
        };
        let steps = TerminateStep::ALL.iter().cycle();
        let mut steps = steps.take(Self::MAX_PASSES * TerminateStep::ALL.len());
        let next = steps.nth(self.sent).filter(|_| !done);
        self.sent += 1;
        next.map(|step| Script::without_key(ScriptKind::Terminate(*step)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps that are sent if each ends like that.
    fn sent_when(mut end: impl FnMut(usize) -> Result<(), SessionError>) -> Vec<TerminateStep> {
        let (mut sequence, mut last, mut sent) = (TerminateSequence::default(), None, Vec::new());
        while let Some(script) = sequence.next(last) {
            let ScriptKind::Terminate(step) = script.kind() else {
                unreachable!("{script:?}");
            };
            last = Some(end(sent.len()));
            sent.push(step);
        }
        sent
    }

    #[test]
    fn terminate_sequence_goes_on_until_a_success() {
        let all = TerminateStep::ALL;
        let gone = || Err(SessionError::new("closed").with_disconnected(true));
        let cancelled = || Err(SessionError::new("cancelled"));
        assert_eq!(sent_when(|_| gone()), all[..1]);
        // The first ended the session, which the client learns by the second.
        assert_eq!(
            sent_when(|sent| if sent == 0 { Ok(()) } else { gone() }),
            all[..2]
        );
        // The server forbids the first two, so all locks are released.
        let forbids_terminate = |sent| if sent == 2 { Ok(()) } else { cancelled() };
        assert_eq!(sent_when(forbids_terminate), all);
        let hit_seven_times = |sent| if sent < 7 { cancelled() } else { gone() };
        assert_eq!(sent_when(hit_seven_times).len(), 8);
        assert_eq!(sent_when(|_| cancelled()).len(), 48);
    }
}
