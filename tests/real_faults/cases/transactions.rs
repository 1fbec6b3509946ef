//! Ends of a transaction-level lock's transaction that only a server has.

use advisory_locking::LockErrorKind::{
    CommitFailed, CommitUnknown, Lost, NotHeld, TransactionPrepared,
};
use advisory_locking::LockMode::Exclusive;
use testkit::cluster::ClusterGuard;
use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::{Observe, lock_call};
use testkit::proxy::{Direction, Policy};
use testkit::server::{connect, connect_to, fresh_name, url, with_database};
use testkit::temp::TempObject;

use super::network::with_proxy;
use super::{LONG, assert_granted_and_released, no_wait};
use crate::actor::Outcome::{Answered, BodySucceeded, Done, Failed, Granted, NotGranted};
use crate::actor::{BODY_VALUE, BodyEnd, Command, LockScope, SqlCommand};
use crate::adapter_under_test::{AdapterUnderTest, assert_any};
use crate::fixture::{pid, until};
use crate::harness::postgres::Endpoint;

/// Each text ends the transaction of the lock, in one message or in several. What the text
/// committed stays committed, and nothing else is.
pub(crate) fn ended_by_any_text(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let actor = fixture.actor();
        let mut rows = 0;
        for (messages, committed) in [
            (&["COMMIT"][..], true),
            (&["END"], true),
            (&["ABORT"], false),
            (&["COMMIT", "BEGIN"], true),
            (&["COMMIT; BEGIN"], true),
            (&["END; BEGIN"], true),
            (&["ABORT; BEGIN"], false),
            (&["ROLLBACK", "BEGIN"], false),
            (&["COMMIT AND CHAIN"], true),
            (&["ROLLBACK AND CHAIN"], false),
            (&["COMMIT; START TRANSACTION; SAVEPOINT nested"], true),
            (&["COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE"], true),
        ] {
            actor.enter(LockScope::Transaction, &key);
            assert_eq!(actor.run_sql(SqlCommand::Write), Done);
            for message in messages {
                assert_eq!(
                    actor.run_sql(SqlCommand::Run(message)),
                    Done,
                    "{messages:?}"
                );
            }
            fixture.assert_free(&key);
            if committed {
                rows += 1;
            }
            if messages
                .last()
                .is_some_and(|last| !["COMMIT", "END", "ABORT"].contains(last))
            {
                assert_eq!(actor.run_sql(SqlCommand::Write), Done, "{messages:?}");
            }
            assert_eq!(actor.end_body(BodyEnd::Ok), Failed(NotHeld), "{messages:?}");
            assert_eq!(
                actor.run_sql(SqlCommand::Count),
                Answered(Some(rows)),
                "{messages:?}"
            );
        }
        // The statements that clients have prepared are gone, so the session is of no further use.
        let discarding = fixture.actor();
        discarding.enter(LockScope::Transaction, &key);
        for message in ["COMMIT", "DISCARD ALL", "BEGIN"] {
            assert_eq!(discarding.run_sql(SqlCommand::Run(message)), Done);
        }
        assert_eq!(discarding.end_body(BodyEnd::Ok), Failed(NotHeld));
        assert_granted_and_released(&actor, &key);
    });
}

/// The server commits, and its answer is lost with the connection.
pub(crate) fn a_lost_answer_to_the_commit(adapter: AdapterUnderTest) {
    let table = TempObject::create("TABLE", "(number int)");
    let insert: &'static str = format!("INSERT INTO {} VALUES (1)", table.name).leak();
    let count = format!("SELECT count(*) FROM {}", table.name);
    with_proxy(adapter, |proxy, proxied, direct| {
        let key = proxied.key("key");
        let [actor, other] = [proxied.actor(), direct.actor()];
        actor.enter(LockScope::Transaction, &key);
        assert_eq!(actor.run_sql(SqlCommand::Run(insert)), Done);
        if adapter.name.starts_with("sqlx") {
            // The check has a message of its own, whose reply must arrive.
            proxy.hold_from("COMMIT");
            actor.start(Command::EndBody(BodyEnd::Ok));
            proxy.wait_until_held(Direction::ToServer);
            proxy.forward_without_replies();
        } else {
            proxy.set(Direction::ToClient, Policy::Discard);
            actor.start(Command::EndBody(BodyEnd::Ok));
        }
        let mut observer = connect();
        until(LONG, || (observer.number(&count) == 1).then_some(()))
            .expect("the server has committed");
        assert_eq!(actor.finished(), None);
        proxy.break_connections();
        proxy.set(Direction::ToClient, Policy::Forward);
        assert_eq!(actor.finish(), Failed(CommitUnknown));
        proxied.assert_soon_free(&key);
        assert_granted_and_released(&other, &key);
    });
}

/// The commit is lost with the connection, before the server receives it. sqlx has only sent the
/// check, so it knows that nothing was committed.
pub(crate) fn a_lost_commit(adapter: AdapterUnderTest) {
    let table = TempObject::create("TABLE", "(number int)");
    let insert: &'static str = format!("INSERT INTO {} VALUES (1)", table.name).leak();
    let count = format!("SELECT count(*) FROM {}", table.name);
    with_proxy(adapter, |proxy, proxied, _| {
        let key = proxied.key("key");
        let actor = proxied.actor();
        actor.enter(LockScope::Transaction, &key);
        assert_eq!(actor.run_sql(SqlCommand::Run(insert)), Done);
        proxy.set(Direction::ToServer, Policy::Hold);
        actor.start(Command::EndBody(BodyEnd::Ok));
        proxy.wait_until_held(Direction::ToServer);
        proxy.break_connections();
        proxy.set(Direction::ToServer, Policy::Forward);
        let is_sqlx = adapter.name.starts_with("sqlx");
        let expected = if is_sqlx { CommitFailed } else { CommitUnknown };
        assert_eq!(actor.finish(), Failed(expected));
        proxied.assert_soon_free(&key);
        assert_eq!(connect().number(&count), 0);
    });
}

/// The server ends the session in the body. Only clients that show the SQLSTATE of the commit can
/// exclude that it was committed. The crate postgres may show that of a later message.
pub(crate) fn ended_before_the_commit(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let actor = fixture.actor();
        actor.enter(LockScope::Transaction, &key);
        connect().terminate(pid(&actor));
        fixture.assert_free(&key);
        let expected: &[_] = match adapter.name {
            "sea_orm_postgres" | "sqlx_postgres" | "sqlx_pool_postgres" => &[Failed(CommitFailed)],
            // Its task reads the end of the session before, while, or after the commit is sent.
            name if name.starts_with("tokio_postgres") => {
                &[Failed(Lost), Failed(CommitFailed), Failed(CommitUnknown)]
            }
            _ => &[Failed(CommitUnknown)],
        };
        assert_any(actor.end_body(BodyEnd::Ok), expected);
    });
}

/// The server commits and then ends the session. The client receives both messages at once.
pub(crate) fn ended_right_after_the_commit(adapter: AdapterUnderTest) {
    let table = TempObject::create("TABLE", "(number int)");
    let insert: &'static str = format!("INSERT INTO {} VALUES (1)", table.name).leak();
    let server = FakeServer::start([Rule::end_session_after("COMMIT", "57P01")]);
    let endpoint = Endpoint {
        actors: server.url(),
        observer: url(),
    };
    adapter.run_at(&endpoint, |fixture| {
        let key = fixture.key("key");
        let actor = fixture.actor();
        actor.enter(LockScope::Transaction, &key);
        assert_eq!(actor.run_sql(SqlCommand::Run(insert)), Done);
        let outcome = actor.end_body(BodyEnd::Ok);
        let count = connect().number(&format!("SELECT count(*) FROM {}", table.name));
        assert_eq!(count, 1, "{outcome:?}");
        assert_any(outcome, &[BodySucceeded(BODY_VALUE), Failed(CommitUnknown)]);
        fixture.assert_soon_free(&key);
    });
}

/// The server rejects the commit and then ends the session.
pub(crate) fn ended_right_after_a_rejected_commit(adapter: AdapterUnderTest) {
    const VIOLATE: &str = "CREATE TEMPORARY TABLE twice \
        (number int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO twice VALUES (1), (1)";
    let server = FakeServer::start([Rule::end_session_after("COMMIT", "57P01")]);
    let endpoint = Endpoint {
        actors: server.url(),
        observer: url(),
    };
    adapter.run_at(&endpoint, |fixture| {
        let key = fixture.key("key");
        let actor = fixture.actor();
        actor.enter(LockScope::Transaction, &key);
        assert_eq!(actor.run_sql(SqlCommand::Run(VIOLATE)), Done);
        let expected: &[_] = if adapter.name.starts_with("rust_postgres") {
            // The client may read both messages at once, and returns the second one only.
            &[Failed(CommitFailed), Failed(CommitUnknown)]
        } else {
            &[Failed(CommitFailed)]
        };
        assert_any(actor.end_body(BodyEnd::Ok), expected);
        fixture.assert_soon_free(&key);
    });
}

/// The prepared transaction of the body holds the lock.
pub(crate) fn prepared_for_two_phase_commit(adapter: AdapterUnderTest) {
    let server = ClusterGuard::acquire();
    let setting = [
        "-o",
        "-c max_prepared_transactions=4",
        "-m",
        "fast",
        "-w",
        "restart",
    ];
    server.ctl(&setting);
    adapter.run_at(&Endpoint::new(server.url()), |fixture| {
        let key = fixture.key("key");
        let [actor, other] = fixture.actors();
        let mut observer = connect_to(&server.url());
        for (end, ended) in [
            ("ROLLBACK PREPARED", Failed(TransactionPrepared)),
            ("COMMIT PREPARED", Failed(TransactionPrepared)),
        ] {
            actor.enter(LockScope::Transaction, &key);
            let prepare = SqlCommand::Run("PREPARE TRANSACTION 'advisory_locking_test'");
            assert_eq!(actor.run_sql(prepare), Done);
            assert_eq!(actor.end_body(BodyEnd::Ok), ended);
            assert_eq!(other.try_acquire(&key, no_wait()), NotGranted);
            observer.run(&format!("{end} 'advisory_locking_test'"));
            fixture.assert_free(&key);
            assert_granted_and_released(&other, &key);
        }
        // A transaction that was not prepared is distinguished from one that was. A prepared
        // transaction of another database holds another lock.
        let identifier = fresh_name();
        let mut elsewhere = connect_to(&with_database(&server.url(), "postgres"));
        let lock = lock_call("pg_advisory_xact_lock", key.raw(), Exclusive);
        elsewhere.run(&format!(
            "BEGIN; SELECT {lock}; PREPARE TRANSACTION '{identifier}'"
        ));
        actor.enter(LockScope::Transaction, &key);
        assert_eq!(actor.run_sql(SqlCommand::Run("COMMIT")), Done);
        assert_eq!(other.acquire(&key, no_wait()), Granted);
        assert_eq!(actor.end_body(BodyEnd::Ok), Failed(NotHeld));
        fixture.assert_held(&key, &[Exclusive]);
        assert_eq!(other.release(), Done);
        elsewhere.run(&format!("ROLLBACK PREPARED '{identifier}'"));
    });
}

/// The holder runs no statement. The snapshot of the lock statement ends at once, or with Diesel at
/// the next statement.
pub(crate) fn held_by_an_idle_body(adapter: AdapterUnderTest) {
    const NO_SNAPSHOT: &str = "state = 'idle in transaction' AND backend_xmin IS NULL";
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let actor = fixture.actor();
        let mut observer = connect();
        let holder = pid(&actor);
        let keeps = ["diesel_postgres", "r2d2_postgres"].contains(&adapter.name);
        // The statement is prepared in the first call.
        for is_prepared in [false, true] {
            actor.enter(LockScope::Transaction, &key);
            if is_prepared {
                assert_eq!(observer.session_matches(holder, NO_SNAPSHOT), !keeps);
                assert_eq!(actor.run_sql(SqlCommand::Run("SELECT")), Done);
                assert!(observer.session_matches(holder, NO_SNAPSHOT));
            }
            actor.succeed();
        }
    });
}
