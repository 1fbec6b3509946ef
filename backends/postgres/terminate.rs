//! The sequence of scripts that terminates a session.

use super::SessionError;
#[cfg(any(test, feature = "_sqlx-postgres"))]
use crate::key::{PgLocksColumns, RawLockKey};

/// One script of the sequence that terminates a session.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TerminateStep {
    /// Ends the session by [`pg_terminate_backend`], unless its transaction is aborted.
    ///
    /// [`pg_terminate_backend`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
    EndSession,
    /// Rolls back, resets the role and then ends the session, for a session in an aborted
    /// transaction, or after [`SET ROLE`]. The new role may not end the sessions of the first one.
    ///
    /// [`SET ROLE`]: https://www.postgresql.org/docs/current/sql-set-role.html
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

    /// Greatest number of passes, for a server that rejects every statement.
    ///
    /// Tests that send cancel requests without a pause need far fewer.
    const MAX_PASSES: usize = 16;

    /// Returns the steps of all passes, to be sent one after the other until one
    /// [ends](Self::ends_sequence) the sequence.
    ///
    /// A cancel request that was meant for another statement may hit any of them.
    pub(crate) fn passes() -> impl Iterator<Item = Self> {
        std::iter::repeat_n(Self::ALL, Self::MAX_PASSES).flatten()
    }

    /// Returns `true` if the reply to this step shows that the session has ended or holds no lock.
    pub(crate) fn ends_sequence(self, reply: &Result<(), SessionError>) -> bool {
        match reply {
            // The end of a session arrives as an error. So only the success of the last step of a
            // pass shows that the session holds no lock.
            Ok(()) => self == Self::ReleaseAllLocks,
            Err(error) => error.is_disconnected(),
        }
    }

    /// Returns the text for the session `pid`, or for any session if its process id is unknown.
    ///
    /// With the process id, the text does nothing on another session, which may belong to another
    /// client of a transaction pooler. The number is written out, because pgpool-II recognizes
    /// [only that]. Otherwise it takes the end of the session for a failure of the server, and
    /// fails over (seen with 4.7.3).
    ///
    /// [only that]: https://www.pgpool.net/docs/latest/en/html/restrictions.html
    pub(crate) fn sql(self, pid: Option<i32>) -> String {
        let (pid, condition) = match pid {
            Some(pid) => (
                pid.to_string(),
                format!(" WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {pid}"),
            ),
            None => ("pg_catalog.pg_backend_pid()".to_owned(), String::new()),
        };
        let end = format!("SELECT pg_catalog.pg_terminate_backend({pid}){condition}");
        match self {
            Self::EndSession => end,
            // An aborted transaction accepts no query before its rollback. One message, because a
            // pooler may send the next one to another session. The role is that of this message
            // only, so a session that goes on keeps its own.
            Self::RollBackAndEndSession => format!(
                "ROLLBACK; SELECT pg_catalog.set_config('role', 'none', true){condition}; {end}"
            ),
            Self::ReleaseAllLocks => {
                format!("SELECT pg_catalog.pg_advisory_unlock_all(){condition}")
            }
        }
    }

    /// Returns the texts to enqueue if no task waits for the replies. `in_transaction` is `true`
    /// behind a wait in a transaction.
    ///
    /// A late cancel request may hit a statement that is queued behind a wait, so all are queued
    /// twice. Another one precedes them, which writes nothing to the server's log:
    ///
    /// * Outside a transaction, a `ROLLBACK` would write a warning. One of the two statements
    ///   before it ends the session.
    /// * In a transaction, which a cancelled wait has aborted, every statement but a `ROLLBACK`
    ///   would write an error.
    #[cfg(any(
        test,
        feature = "diesel-async-postgres",
        feature = "sqlx-postgres",
        feature = "tokio-postgres"
    ))]
    pub(crate) fn queued(pid: Option<i32>, in_transaction: bool) -> impl Iterator<Item = String> {
        let first = if in_transaction {
            Self::RollBackAndEndSession
        } else {
            Self::EndSession
        };
        let twice = [Self::ALL, Self::ALL].into_iter().flatten();
        let steps = std::iter::once(first).chain(twice);
        steps.map(move |step| step.sql(pid))
    }
}

/// Returns the query that ends the session `pid` if [`pg_locks`] shows that it waits for this key.
///
/// For another connection than the session's own. The query does nothing to any other session. The
/// session may have ended, so that its process id belongs to another one. Or a pooler in session
/// mode has given it to another client.
///
/// [`PgLocksColumns::sql_condition`] is for queries by hand: its operators depend on the
/// `search_path`.
///
/// [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
#[cfg(any(test, feature = "_sqlx-postgres"))]
pub(crate) fn terminate_if_waiting(pid: i32, awaited: RawLockKey) -> String {
    let PgLocksColumns {
        classid,
        objid,
        objsubid,
    } = awaited.pg_locks();
    format!(
        "SELECT pg_catalog.pg_terminate_backend({pid}) FROM pg_catalog.pg_locks WHERE pid OPERATOR(pg_catalog.=) {pid} AND NOT granted \
         AND locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND classid OPERATOR(pg_catalog.=) '{classid}' AND objid OPERATOR(pg_catalog.=) '{objid}' \
         AND objsubid OPERATOR(pg_catalog.=) {objsubid}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps that are sent if each ends like that.
    fn sent_when(mut end: impl FnMut(usize) -> Result<(), SessionError>) -> Vec<TerminateStep> {
        let mut sent = Vec::new();
        for step in TerminateStep::passes() {
            let reply = end(sent.len());
            sent.push(step);
            if step.ends_sequence(&reply) {
                break;
            }
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

    #[test]
    fn text_with_a_process_id_does_nothing_on_another_session() {
        for step in TerminateStep::ALL {
            let text = step.sql(Some(12_345));
            assert!(
                text.ends_with(" WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) 12345"),
                "{text}"
            );
        }
        let end = TerminateStep::EndSession.sql(Some(12_345));
        assert!(end.contains("pg_terminate_backend(12345)"), "{end}");
    }

    /// The state of a session that receives the queued texts.
    #[derive(Clone, Copy, PartialEq)]
    enum Session {
        Outside,
        Aborted,
        Ended,
    }

    /// Sends the queued texts, of which a cancel request hits one. Returns the state afterwards,
    /// and the numbers of needless rollbacks and of rejected statements.
    fn after_queued(
        mut session: Session,
        in_transaction: bool,
        cancelled: Option<usize>,
    ) -> (Session, u32, u32) {
        let (mut warnings, mut errors) = (0, 0);
        for (number, text) in TerminateStep::queued(None, in_transaction).enumerate() {
            if cancelled == Some(number) || session == Session::Ended {
                continue;
            }
            if text.starts_with("ROLLBACK") {
                warnings += u32::from(session == Session::Outside);
                session = Session::Outside;
            }
            errors += u32::from(session == Session::Aborted);
            if session == Session::Outside && text.contains("pg_terminate_backend") {
                session = Session::Ended;
            }
        }
        (session, warnings, errors)
    }

    #[test]
    fn queued_texts_end_the_session_if_one_is_cancelled() {
        let count = TerminateStep::queued(None, false).count();
        for cancelled in std::iter::once(None).chain((0..count).map(Some)) {
            for (session, in_transaction) in [
                (Session::Outside, false),
                (Session::Aborted, true),
                // In a transaction that the client does not know of.
                (Session::Aborted, false),
            ] {
                let (after, warnings, errors) = after_queued(session, in_transaction, cancelled);
                assert!(after == Session::Ended && warnings == 0);
                if session == Session::Outside || (in_transaction && cancelled.is_none()) {
                    assert_eq!(errors, 0);
                }
            }
        }
    }
}
