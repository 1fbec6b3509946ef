//! Bodies of Diesel that leave the data of a `COPY` unread.

use std::io::{BufRead, Read};

use advisory_locking::{AdvisoryLocking, LockError, LockKey};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::server::{block, connect, fresh_key};

diesel::table! { copied (id) { id -> Integer } }

/// A connection with a table of ten rows.
fn with_rows() -> PgConnection {
    let mut conn = connect();
    conn.run("CREATE TEMP TABLE copied (id int); INSERT INTO copied SELECT generate_series(1, 10)");
    conn
}

/// A statement that leaves data unread.
type Copy = (&'static str, fn(&mut PgConnection));

const COPIES: [Copy; 4] = [
    ("to, as text", |conn| {
        conn.batch_execute("COPY copied TO STDOUT").unwrap();
    }),
    ("from, as text", |conn| {
        conn.batch_execute("COPY copied FROM STDIN").unwrap();
    }),
    ("to, read in part", |conn| {
        let mut copy = diesel::copy_to(copied::table).load_raw(conn).unwrap();
        copy.read_until(b'\n', &mut Vec::new()).unwrap();
    }),
    // Diesel leaves the end of the `COPY` unread (seen with 2.3.14).
    ("to, read to its end", |conn| {
        let mut copy = diesel::copy_to(copied::table).load_raw(conn).unwrap();
        copy.read_to_end(&mut Vec::new()).unwrap();
    }),
];

fn each_twice(mut call: impl FnMut(&mut PgConnection, &LockKey, Copy) -> Result<(), LockError>) {
    for copy in COPIES {
        let (mut conn, key) = (with_rows(), fresh_key());
        let pid = conn.pid();
        // libpq reads the rest before it prepares a statement, so the second round matters.
        for round in 1..=2 {
            let result = call(&mut conn, &key, copy);
            assert!(result.is_ok(), "{}, round {round}: {result:?}", copy.0);
            assert!(connect().is_free(&key), "{}", copy.0);
        }
        assert_eq!(conn.pid(), pid);
    }
}

#[test]
fn unread_copy_in_a_body_affects_no_release() {
    each_twice(|conn, key, (_, copy)| {
        conn.with_advisory_lock(key, block(), |conn| {
            copy(conn);
            Ok(())
        })
    });
}

#[test]
fn unread_copy_before_a_call_affects_no_lock() {
    each_twice(|conn, key, (_, copy)| {
        copy(conn);
        conn.acquire_advisory_lock(key, block())?.release()
    });
}

#[test]
fn unread_copy_in_a_transaction_is_committed() {
    for (name, copy) in COPIES {
        let (mut conn, key) = (with_rows(), fresh_key());
        for _ in 0..2 {
            let committed = conn.with_advisory_xact_lock(&key, block(), |conn| {
                conn.run("INSERT INTO copied VALUES (11)");
                copy(conn);
                Ok::<_, LockError>(())
            });
            // The end of the input is missing, which aborts the transaction.
            assert_eq!(committed.is_ok(), name != "from, as text", "{committed:?}");
        }
        let rows = if name == "from, as text" { 10 } else { 12 };
        assert_eq!(conn.number("SELECT count(*) FROM copied"), rows, "{name}");
        assert!(connect().is_free(&key));
    }
}
