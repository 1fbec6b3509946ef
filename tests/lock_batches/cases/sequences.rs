//! The sequences that may issue tokens.

use advisory_locking::LockKey;
use advisory_locking::session::TokenSource;
use testkit::observer::Observe;
use testkit::server::fresh_key;
use testkit::temp::TempDatabase;

use super::locks_of;
use crate::client::{Connect, acquire, acquire_with_token, issue_token, release};

pub(crate) fn invalid_sequence_issues_no_token(open: Connect) {
    let database = TempDatabase::create();
    let mut admin = database.connect();
    admin.run("CREATE SEQUENCE cached CACHE 2; CREATE SEQUENCE cycling CYCLE; CREATE SEQUENCE falling INCREMENT -1; \
         CREATE TABLE none_at_all ()");
    let mut session = open(&database.url());
    let kept: LockKey = fresh_key();
    for name in ["cached", "cycling", "falling", "none_at_all"] {
        let [with_token, plain] = [fresh_key(), fresh_key()];
        assert_eq!(session.execute(&[acquire(&kept)]), [Some(1)]);
        let ops = [
            acquire_with_token(&with_token),
            acquire(&plain),
            issue_token(&kept),
            release(&kept),
        ];
        let row = session.execute_with(&ops, &TokenSource::Sequence(name.into()));
        // Operations that want no token run even so.
        let answers = vec![None, Some(1), None, Some(1)];
        assert_eq!((row.answers, row.token), (Some(answers), Some(0)), "{name}");
        assert_eq!(locks_of(&mut admin, session.pid), 1, "{name}");
        assert_eq!(session.execute(&[release(&plain)]), [Some(1)], "{name}");
    }
}

pub(crate) fn sequence_name_is_read_as_regclass(open: Connect) {
    let database = TempDatabase::create();
    database.connect().run(
        "CREATE SEQUENCE fencing; CREATE SCHEMA app; CREATE SEQUENCE app.fencing START 100; \
         CREATE SEQUENCE \"Fencing\" START 200 INCREMENT 7",
    );
    let mut session = open(&database.url());
    for (name, token) in [
        ("fencing", 1),
        ("app.fencing", 100),
        ("\"Fencing\"", 200),
        ("\"Fencing\"", 207),
    ] {
        let row = session.execute_with(
            &[acquire_with_token(&fresh_key())],
            &TokenSource::Sequence(name.into()),
        );
        assert_eq!(
            (row.answers, row.token),
            (Some(vec![Some(token)]), Some(1)),
            "{name}"
        );
    }
}
