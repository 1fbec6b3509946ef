//! Which sequences tokens are drawn from.

use advisory_locking::LockKey;
use advisory_locking::session::TokenSource;

use super::locks_of;
use crate::client::{Connect, draw, give_back, take, take_fenced};
use crate::support::{fresh_key, run};
use crate::throwaway::Database;

pub(crate) fn a_sequence_that_does_not_only_grow_is_refused(open: Connect) {
    let database = Database::create();
    let mut admin = database.connect();
    run(
        &mut admin,
        "CREATE SEQUENCE cached CACHE 2; CREATE SEQUENCE cycling CYCLE; CREATE SEQUENCE falling INCREMENT -1; \
         CREATE TABLE none_at_all ()",
    );
    let mut session = open(&database.url());
    let kept: LockKey = fresh_key();
    for name in ["cached", "cycling", "falling", "none_at_all"] {
        let [fenced, plain] = [fresh_key(), fresh_key()];
        assert_eq!(session.serve(&[take(&kept)]), [Some(1)]);
        let steps = [
            take_fenced(&fenced),
            take(&plain),
            draw(&kept),
            give_back(&kept),
        ];
        let row = session.serve_with(&steps, &TokenSource::Sequence(name.into()));
        // What wants no token is done all the same.
        let answers = vec![None, Some(1), None, Some(1)];
        assert_eq!((row.answers, row.token), (Some(answers), Some(0)), "{name}");
        assert_eq!(locks_of(&mut admin, session.pid), 1, "{name}");
        assert_eq!(session.serve(&[give_back(&plain)]), [Some(1)], "{name}");
    }
}

pub(crate) fn a_sequence_is_named_as_in_a_statement(open: Connect) {
    let database = Database::create();
    run(
        &mut database.connect(),
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
        let row = session.serve_with(
            &[take_fenced(&fresh_key())],
            &TokenSource::Sequence(name.into()),
        );
        assert_eq!(
            (row.answers, row.token),
            (Some(vec![Some(token)]), Some(1)),
            "{name}"
        );
    }
}
