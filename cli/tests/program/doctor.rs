//! `doctor` against servers and poolers.

use testkit::cluster::ClusterGuard;
use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::Observe;
use testkit::pooling_proxy::{Ability, PoolingProxy};
use testkit::server::{eventually, fresh_name, url, with_parameters};
use testkit::temp::{TempDatabase, TempRole};

use crate::program::{run, run_on};

/// Returns the grade of a check.
fn grade(output: &str, check: &str) -> String {
    let line = output
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(check));
    let line = line.unwrap_or_else(|| panic!("no check {check}: {output}"));
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn healthy_server_has_no_fault() {
    let done = run(&["doctor"]);
    for check in [
        "server", "primary", "locks", "pooler", "execute", "plpgsql", "details",
    ] {
        assert_eq!(grade(&done.assert_code(0).stdout, check), "ok", "{check}");
    }
    assert_eq!(grade(&done.stdout, "application_name"), "warn");
    run(&["doctor", "--json"])
        .assert_code(0)
        .assert_stdout("\"check\":\"pooler\"");
    for (parameter, expected) in [
        ("application_name=service", "ok"),
        ("application_name=", "warn"),
    ] {
        let done = run_on(&with_parameters(&url(), parameter), &["doctor"]);
        assert_eq!(
            grade(&done.stdout, "application_name"),
            expected,
            "{parameter}"
        );
    }
}

#[test]
fn unfit_servers_are_faults() {
    for (rules, check) in [
        (vec![Rule::standby()], "primary"),
        (Rule::cockroach_db(), "locks"),
        (Rule::no_lock_functions(), "locks"),
    ] {
        let server = FakeServer::start(rules);
        let done = run_on(&server.url(), &["doctor", "--no-pooler-check"]);
        assert_eq!(grade(&done.assert_code(1).stdout, check), "bad", "{done:?}");
    }
}

#[test]
fn poolers_have_their_grades() {
    for (ability, code, expected) in [
        (Ability::Nothing, 1, "bad"),
        (Ability::ReplaysSettings, 1, "bad"),
        (Ability::PinsLockHolders, 0, "warn"),
    ] {
        let pooler = PoolingProxy::start(ability);
        let done = run_on(&pooler.url(), &["doctor"]);
        assert_eq!(
            grade(&done.assert_code(code).stdout, "pooler"),
            expected,
            "{ability:?}"
        );
    }
}

#[test]
fn role_without_privileges_is_told_the_grants() {
    let (database, role) = (TempDatabase::create(), TempRole::create());
    let done = run_on(&role.url(&database.url()), &["doctor"]);
    done.assert_code(0)
        .assert_stdout("GRANT pg_read_all_stats")
        .assert_stdout("GRANT pg_signal_backend");
    role.set("idle_in_transaction_session_timeout = '1min'");
    let done = run_on(&role.url(&database.url()), &["doctor"]);
    assert_eq!(
        grade(
            &done.assert_code(0).stdout,
            "idle_in_transaction_session_timeout"
        ),
        "warn"
    );
}

#[test]
fn predicate_and_fast_path_locks_fill_no_lock_table() {
    let server = ClusterGuard::acquire();
    let lock_table = || {
        let done = run_on(&server.url(), &["doctor", "--no-pooler-check"]);
        let output = done.assert_code(0).stdout.clone();
        let line = output.lines().find(|line| line.contains("lock table"));
        line.expect("the check of the lock table").to_owned()
    };
    let (mut session, table) = (server.connect(), fresh_name());
    session.run(&format!("CREATE TABLE {table} (number int)"));
    // Autovacuum may acquire locks between two counts.
    eventually("a count without these locks", || {
        let before = lock_table();
        session.run("BEGIN ISOLATION LEVEL SERIALIZABLE");
        session.number(&format!("SELECT count(*) FROM {table}"));
        let held =
            "SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock' AND pid = pg_backend_pid()";
        assert_eq!(session.number(held), 1);
        let during = lock_table();
        session.run("ROLLBACK");
        during == before
    });
    session.run(&format!("DROP TABLE {table}"));
}
