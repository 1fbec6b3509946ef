//! `ls`, `who`, `kill` and `watch`.

use std::fs::File;
use std::process::Stdio;

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions, RawLockKey};
use diesel::PgConnection;
use rustix::pipe::{PipeFlags, pipe_with};
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::server::{connect, connect_with, fresh_integer, fresh_name, fresh_pair, url};
use testkit::temp::TempRole;

use crate::program::{Running, program, run, run_command, run_on, run_until_shown};

#[test]
fn holders_and_waiters_of_each_kind_of_key_are_shown() {
    let (number, (first, second)) = (fresh_integer(), fresh_pair());
    let keys = [
        (LockKey::from(-number), format!("--key={}", -number)),
        (
            LockKey::from((-first, second)),
            format!("--key=-{first},{second}"),
        ),
        (
            LockKey::from(i64::MIN + number),
            format!("--key={}", i64::MIN + number),
        ),
    ];
    for (key, argument) in keys {
        let mut holder = connect_with("application_name=holder-of-a-lock");
        let guard = holder
            .acquire_advisory_lock(&key, LockOptions::no_wait())
            .unwrap();
        let running = Running::start(program(&["run", &argument, "--block", "--", "true"]));
        let mut observer = connect();
        observer.wait_until_waiters(&key, 1);
        let pid = observer.holder(&key);
        let done = run(&["who", &argument]);
        done.assert_code(0)
            .assert_stdout("HELD")
            .assert_stdout("holder-of-a-lock")
            .assert_stdout("session of ");
        done.assert_stdout("WAITING")
            .assert_stdout(&format!("behind {pid}"));
        let digits = argument.trim_start_matches("--key=");
        run(&["ls"]).assert_code(0).assert_stdout(digits);
        run(&["ls", "--json"]).assert_stdout(&format!("\"key\":\"{digits}\""));
        let done = run(&["ls", "--waiting", "--json"]);
        done.assert_stdout(&format!("\"blocked_by\":[{pid}]"));
        guard.release().unwrap();
        running.wait().assert_code(0);
        run(&["who", &argument])
            .assert_code(0)
            .assert_stdout("not held");
        let done = run(&["ls"]);
        assert!(!done.stdout.contains(digits), "{done:?}");
    }
}

#[test]
fn names_of_keys_come_from_a_file() {
    let name = fresh_name();
    let file = std::env::temp_dir().join(fresh_name());
    std::fs::write(&file, format!("other\n{name}\n")).unwrap();
    let mut holder = connect();
    let guard = holder
        .acquire_advisory_lock(&*name, LockOptions::no_wait())
        .unwrap();
    let arguments = ["ls", "--held", "--names", file.to_str().unwrap()];
    run(&arguments).assert_code(0).assert_stdout(&name);
    run(&[
        "watch",
        "--count=2",
        "-n",
        "10ms",
        "--json",
        "--names",
        file.to_str().unwrap(),
    ])
    .assert_code(0)
    .assert_stdout(&format!("\"name\":\"{name}\""));
    drop(guard);
    std::fs::remove_file(&file).unwrap();
    run(&arguments)
        .assert_code(64)
        .assert_stderr("No such file");
}

#[test]
fn role_without_privileges_sees_the_holder_and_may_not_end_it() {
    let (name, role) = (fresh_name(), TempRole::create());
    let mut holder = connect_with("application_name=hidden-holder");
    let guard = holder
        .acquire_advisory_lock(&*name, LockOptions::no_wait())
        .unwrap();
    let role_url = role.url(&url());
    let done = run_on(&role_url, &["who", &name]);
    done.assert_code(0)
        .assert_stdout("hidden-holder")
        .assert_stdout("details hidden");
    let done = run_on(&role_url, &["kill", &name]);
    done.assert_code(77);
    guard.release().unwrap();
}

/// The session of another role comes first, in the order of process ids.
#[test]
fn kill_ends_the_sessions_that_the_role_may_end() {
    let (name, role) = (fresh_name(), TempRole::create());
    let shared = LockOptions::no_wait().shared();
    let mut sessions = [connect(), connect_with(&role.login())];
    let pids: Vec<i64> = sessions.iter_mut().map(Observe::pid).collect();
    let [other, own] = &mut sessions;
    let guards = [other, own].map(|session| session.acquire_advisory_lock(&*name, shared).unwrap());
    let done = run_on(&role.url(&url()), &["kill", &name]);
    done.assert_code(77)
        .assert_stdout(&format!("terminated pid {}\n", pids[1]))
        .assert_stderr(&format!("pid {}", pids[0]));
    assert_eq!(done.stdout.lines().count(), 1, "{done:?}");
    let mut observer = connect();
    // A session releases its locks before it disappears, and `kill` waits for the locks.
    observer.wait_until_ended(pids[1]);
    assert!(observer.is_alive(pids[0]));
    let done = run_on(&role.url(&url()), &["kill", &name, "--json"]);
    done.assert_code(77).assert_stdout("\"terminated\":[]");
    drop(guards);
}

/// PostgreSQL replaces control characters of the name; a pooler or a fork may not.
#[test]
fn application_name_cannot_control_the_terminal() {
    let name = fresh_name();
    let mut holder = connect_with("application_name=%1B[2Jevil%C2%9B%E2%80%AE");
    let guard = holder
        .acquire_advisory_lock(&*name, LockOptions::no_wait())
        .unwrap();
    for arguments in [
        &["who", &name][..],
        &["ls"],
        &["ls", "--json"],
        &["try", &name],
    ] {
        let done = run_until_shown(arguments, "evil");
        let shown = format!("{}{}", done.stdout, done.stderr);
        assert!(shown.contains("evil"), "{arguments:?}: {done:?}");
        let is_safe = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
        assert!(shown.chars().all(is_safe), "{arguments:?}: {done:?}");
    }
    guard.release().unwrap();
}

/// A session that holds the lock in both modes.
#[test]
fn kill_names_a_session_once() {
    let (name, mut session) = (fresh_name(), connect());
    let RawLockKey::Single(number) = LockKey::from(&*name).raw() else {
        panic!("a name is one number");
    };
    session.run(&format!(
        "SELECT pg_advisory_lock({number}), pg_advisory_lock_shared({number})"
    ));
    let done = run(&["kill", &name]);
    assert_eq!(done.assert_code(0).stdout.lines().count(), 1, "{done:?}");
}

#[test]
fn kill_ends_the_holders_of_a_name_only() {
    let (name, other) = (fresh_name(), fresh_name());
    let mut sessions = [connect(), connect(), connect()];
    let pids: Vec<i64> = sessions.iter_mut().map(Observe::pid).collect();
    let shared = LockOptions::no_wait().shared();
    let [first, second, third] = &mut sessions;
    let guards = [
        first.acquire_advisory_lock(&*name, shared).unwrap(),
        second.acquire_advisory_lock(&*name, shared).unwrap(),
        third.acquire_advisory_lock(&*other, shared).unwrap(),
    ];
    let done = run(&["kill", &name]);
    let done = done.assert_code(0);
    assert_eq!(done.stdout.lines().count(), 2, "{done:?}");
    let mut observer = connect();
    for ended in &pids[..2] {
        observer.wait_until_ended(ended);
    }
    assert!(observer.is_alive(pids[2]));
    run(&["kill", &name])
        .assert_code(0)
        .assert_stderr("no session holds");
    run(&["kill", "--pid", "1"])
        .assert_code(64)
        .assert_stderr("neither holds nor awaits");
    run(&["kill"]).assert_code(64);
    for guard in guards {
        drop(guard);
    }
}

/// A report about all locks has at most 1,000 rows, and these are more.
fn hold_thousands_of_locks(server: &ClusterGuard) -> PgConnection {
    let mut session = server.connect();
    session.run("SELECT count(pg_advisory_lock(number)) FROM generate_series(1, 3000) AS number");
    session
}

/// Five, because a report without order may contain one by chance.
#[test]
fn kill_finds_sessions_among_thousands_of_locks() {
    let server = ClusterGuard::acquire();
    let _filler = hold_thousands_of_locks(&server);
    for _ in 0..5 {
        let mut session = server.connect();
        let pid = session.pid();
        session.run(&format!("SELECT pg_advisory_lock({})", -pid));
        let done = run_on(&server.url(), &["kill", "--pid", &pid.to_string()]);
        done.assert_code(0)
            .assert_stdout(&format!("terminated pid {pid}\n"));
    }
}

#[test]
fn awaited_locks_are_shown_among_thousands() {
    let server = ClusterGuard::acquire();
    let _filler = hold_thousands_of_locks(&server);
    let (mut holder, mut observer) = (server.connect(), server.connect());
    let names = [(); 5].map(|()| fresh_name());
    let waiters = names.each_ref().map(|name| {
        let key = LockKey::from(&**name);
        let RawLockKey::Single(number) = key.raw() else {
            panic!("a name is one number");
        };
        holder.run(&format!("SELECT pg_advisory_lock({number})"));
        let mut waiter = program(&["run", name, "--block", "--", "true"]);
        waiter.env("DATABASE_URL", server.url());
        let waiter = Running::start(waiter);
        observer.wait_until_waiters(&key, 1);
        waiter
    });
    let done = run_on(&server.url(), &["ls", "--waiting", "--json"]);
    let blocked_by = format!("\"blocked_by\":[{}]", holder.pid());
    let shown = done.assert_code(0).stdout.matches(&blocked_by).count();
    assert_eq!(shown, names.len(), "{done:?}");
    holder.run("SELECT pg_advisory_unlock_all()");
    for waiter in waiters {
        waiter.wait().assert_code(0);
    }
}

#[test]
fn closed_output_is_no_panic() {
    for arguments in [
        &["ls"][..],
        &["key", "a", "--all"],
        &["--help"],
        &["man"],
        &["watch", "-n1ms"],
    ] {
        // Other tests start processes, which must not inherit the reader.
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(reader);
        let mut command = program(arguments);
        command.stdout(writer).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn full_disk_is_an_error() {
    let mut command = program(&["key", "a"]);
    command
        .stdout(File::options().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot write"),
        "{output:?}"
    );
}

#[test]
fn colours_follow_the_environment() {
    let name = fresh_name();
    let mut holder = connect();
    let guard = holder
        .acquire_advisory_lock(&*name, LockOptions::no_wait())
        .unwrap();
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = program(&["who", &name]);
        command.envs(variables.iter().copied());
        run_command(command).stdout.contains('\u{1b}')
    };
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    guard.release().unwrap();
}

/// It has no session that could be ended.
#[test]
fn kill_of_a_prepared_transaction_is_an_error() {
    let (server, name) = (ClusterGuard::acquire(), fresh_name());
    let setting = "-c max_prepared_transactions=4";
    server.ctl(&["-o", setting, "-m", "fast", "-w", "restart"]);
    let mut conn = server.connect();
    let number = run(&["key", &name]).assert_code(0).stdout.trim().to_owned();
    conn.run("BEGIN");
    conn.run(&format!("SELECT pg_advisory_xact_lock({number})"));
    conn.run(&format!("PREPARE TRANSACTION '{name}'"));
    let done = run_on(&server.url(), &["kill", &name]);
    conn.run(&format!("ROLLBACK PREPARED '{name}'"));
    done.assert_code(76).assert_stderr("ROLLBACK PREPARED");
    conn.assert_soon_free(&LockKey::from(&*name), "the rollback");
}
