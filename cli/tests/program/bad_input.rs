//! Wrong arguments and unfit servers: a clear text and an exit code for each.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use testkit::cluster::ClusterGuard;
use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::Observe;
use testkit::pooling_proxy::{Ability, PoolingProxy};
use testkit::server::{fresh_name, url, with_parameters};
use testkit::temp::TempRole;

use crate::program::{program, run, run_command, run_on};

#[test]
fn wrong_arguments_are_usage_errors() {
    for (arguments, text) in [
        (&[][..], "Usage"),
        (&["no-such-command"], "no-such-command"),
        (&["run", "a"], "COMMAND"),
        (&["run", "a", "true"], "unexpected argument"),
        (&["run", "a", "--"], "COMMAND"),
        (&["run", "--", "true"], "NAME"),
        (&["run", "a", "-w", "soon", "--", "true"], "unknown unit"),
        (
            &["run", "a", "-w", "1", "-n", "--", "true"],
            "cannot be used",
        ),
        (&["run", "a", "-s", "-x", "--", "true"], "cannot be used"),
        (&["run", "a", "-E", "256", "--", "true"], "256"),
        (&["run", "a", "--bogus", "--", "true"], "--bogus"),
        (
            &["run", "a", "--check-interval=0", "--", "true"],
            "at least 1ms",
        ),
        (&["try", "a", "--poll-interval=0"], "at least 1ms"),
        (&["watch", "-n", "0"], "at least 1ms"),
        (&["watch", "--count=0"], "0 is not in"),
        (&["kill", "a", "--pid", "1"], "cannot be used"),
        (&["try"], "NAME"),
    ] {
        run(arguments).assert_code(64).assert_stderr(text);
    }
}

#[test]
fn server_that_does_not_answer_is_unavailable() {
    for (url, text) in [
        ("postgres://postgres@127.0.0.1:1/d", "127.0.0.1:1"),
        (
            "postgres:///d?host=/no/such/directory",
            "/no/such/directory/.s.PGSQL.5432",
        ),
        ("postgres://no-such-host.invalid/d", "no-such-host.invalid"),
    ] {
        for command in [
            &["ls"][..],
            &["try", "a"],
            &["run", "a", "--", "true"],
            &["doctor"],
        ] {
            run_on(url, command).assert_code(69).assert_stderr(text);
        }
    }
    let (server, _) = url()
        .rsplit_once('/')
        .map(|(server, rest)| (server.to_owned(), rest.to_owned()))
        .unwrap();
    run_on(&format!("{server}/no_such_database"), &["ls"])
        .assert_code(69)
        .assert_stderr("no_such_database");
}

#[test]
fn unknown_role_is_refused() {
    let role = TempRole::create();
    let gone = role.url(&url());
    drop(role);
    run_on(&gone, &["ls"]).assert_code(77).assert_stderr("role");
}

#[test]
fn role_with_no_connection_left_is_unavailable() {
    let role = TempRole::create_with("CONNECTION LIMIT 0");
    run_on(&role.url(&url()), &["ls"])
        .assert_code(69)
        .assert_stderr("too many connections");
}

#[test]
fn unsupported_parameter_is_a_usage_error() {
    for parameter in [
        "requirepeer=postgres",
        "sslcrl=file",
        "sslmode=none",
        "bogus=1",
    ] {
        let url = with_parameters(&url(), parameter);
        run_on(&url, &["ls"]).assert_code(64);
    }
    run_on("mysql://host/d", &["ls"])
        .assert_code(64)
        .assert_stderr("postgres://");
    for (variable, value, text) in [
        ("PGREQUIREPEER", "postgres", "PGREQUIREPEER"),
        ("PGREQUIRESSL", "1", "PGREQUIRESSL"),
        (
            "PGSSLMINPROTOCOLVERSION",
            "TLSv1.3",
            "PGSSLMINPROTOCOLVERSION",
        ),
        ("PGMINPROTOCOLVERSION", "3.2", "PGMINPROTOCOLVERSION"),
        ("PGSSLCERTMODE", "require", "sslcertmode"),
        ("PGGSSENCMODE", "require", "gssencmode"),
    ] {
        let mut command = program(&["ls"]);
        command.env(variable, value);
        run_command(command).assert_code(64).assert_stderr(text);
    }
    let mut command = program(&["ls"]);
    command
        .env("PGSSLCERTMODE", "allow")
        .env("PGGSSENCMODE", "prefer");
    run_command(command).assert_code(0);
}

/// Without the variable the program would connect to another server.
#[test]
fn variable_that_is_not_utf8_is_a_usage_error() {
    for variable in ["DATABASE_URL", "PGHOST", "PGREQUIREPEER"] {
        let mut command = program(&["ls"]);
        command.env(variable, OsStr::from_bytes(b"/no/such/\xff"));
        let done = run_command(command);
        done.assert_code(64).assert_stderr(variable);
    }
    let mut command = program(&["ls", "-d", &url()]);
    command.env("DATABASE_URL", OsStr::from_bytes(b"\xff"));
    run_command(command).assert_code(0);
}

#[test]
fn server_that_cannot_lock_is_unfit() {
    let servers = [
        (FakeServer::start([Rule::standby()]), "hot standby"),
        (
            FakeServer::start(Rule::cockroach_db()),
            "exclude no other session",
        ),
        (
            FakeServer::start(Rule::no_lock_functions()),
            "does not exist",
        ),
    ];
    for (server, text) in &servers {
        for command in [
            &["run", "a", "--no-pooler-check", "--", "echo", "ran"][..],
            &["try", "a", "--no-pooler-check"],
        ] {
            let done = run_on(&server.url(), command);
            done.assert_code(78).assert_stderr(text);
            assert_eq!(done.stdout, "");
        }
    }
    let standby = &servers[0].0;
    let name = fresh_name();
    let arguments = [
        "run",
        &name,
        "--no-pooler-check",
        "--allow-standby",
        "--",
        "true",
    ];
    run_on(&standby.url(), &arguments).assert_code(0);
}

#[test]
fn transaction_pooler_is_unfit() {
    let name = fresh_name();
    for ability in [Ability::Nothing, Ability::ReplaysSettings] {
        let pooler = PoolingProxy::start(ability);
        for command in [
            &["run", &name, "--", "echo", "ran"][..],
            &["try", &name],
            &["wait", &name],
        ] {
            let done = run_on(&pooler.url(), command);
            done.assert_code(78).assert_stderr("transaction pooler");
            assert_eq!(done.stdout, "");
        }
    }
}

/// Such a pooler keeps the session of a lock holder, if the program polls.
#[test]
fn pinning_pooler_is_accepted_without_block() {
    let pooler = PoolingProxy::start(Ability::PinsLockHolders);
    let name = fresh_name();
    for options in [&[][..], &["-n", "--block"]] {
        let arguments = [&["run", &name], options, &["--", "true"]].concat();
        run_on(&pooler.url(), &arguments).assert_code(0);
    }
    for arguments in [
        &["run", &name, "--block", "--", "true"][..],
        &["wait", &name, "--block"],
    ] {
        run_on(&pooler.url(), arguments)
            .assert_code(78)
            .assert_stderr("acquired by polling");
    }
}

#[test]
fn full_lock_table_has_its_own_code() {
    let server = FakeServer::start([Rule::end_session("pg_try_advisory_lock", "53200")]);
    let done = run_on(
        &server.url(),
        &["run", "a", "--no-pooler-check", "--", "echo", "ran"],
    );
    done.assert_code(71)
        .assert_stderr("max_locks_per_transaction");
}

/// Depending on the room that is left, the server refuses the connection or the lock.
#[test]
fn full_lock_table_of_a_real_server_has_the_same_code() {
    let cluster = ClusterGuard::acquire();
    let mut filler = cluster.connect();
    let fill = "SELECT pg_advisory_lock(number) FROM generate_series(1, 10000000) AS number";
    let mut fill_and_run = || {
        assert!(filler.try_run(fill).is_err());
        run_on(&cluster.url(), &["run", "a", "--", "echo", "ran"])
    };
    let mut done = fill_and_run();
    // The server's own processes may have released some entries.
    for _ in 0..20 {
        if done.code != Some(0) {
            break;
        }
        done = fill_and_run();
    }
    done.assert_code(71);
    assert_eq!(done.stdout, "");
    filler.run("SELECT pg_advisory_unlock_all()");
    run_on(&cluster.url(), &["run", "a", "--", "echo", "ran"]).assert_code(0);
}

/// A server that accepts connections and sends nothing.
#[test]
fn connect_timeout_bounds_the_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=1&sslmode=disable");
    let began = std::time::Instant::now();
    run_on(&url, &["ls"])
        .assert_code(69)
        .assert_stderr("connect_timeout");
    assert!(began.elapsed() >= Duration::from_secs(1));
}
