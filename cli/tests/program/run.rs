//! `run`, `try` and `wait`: exit codes, the environment of the command, exclusion.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions};
use testkit::observer::Observe;
use testkit::server::{connect, eventually, fresh_name, url};
use testkit::temp::{TempDatabase, TempObject, TempRole};
use testkit::timeouts::timeout_settings;

use crate::processes::{fresh_sleep, send, wait_for_sleep};
use crate::program::{Running, program, run, run_command, run_on, run_until_shown};
use rustix::process::Signal;

#[test]
fn exit_code_is_that_of_the_command() {
    let name = fresh_name();
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["no-such-command"], 127),
        (&["-c"], 127),
        (&["/etc/passwd"], 126),
        (&["/"], 127),
    ] {
        let arguments = [&["run", &name, "--"], command].concat();
        run(&arguments).assert_code(code);
    }
    assert!(connect().is_free(&LockKey::from(&*name)));
}

/// The command is looked for before the server is asked.
#[test]
fn missing_command_needs_no_server() {
    let none = "postgres://127.0.0.1:1/none";
    run_on(none, &["run", "a", "--", "no-such-command"]).assert_code(127);
    run_on(none, &["run", "a", "--", "/etc/passwd"]).assert_code(126);
    run_on(none, &["run", "a", "--", "true"]).assert_code(69);
}

/// Without a shell, no character of an argument is special.
#[test]
fn command_runs_without_a_shell() {
    let name = fresh_name();
    let done = run(&["run", &name, "--", "printf", "%s|", "$HOME *", "a  b", "-c"]);
    assert_eq!(done.assert_code(0).stdout, "$HOME *|a  b|-c|");
}

#[test]
fn text_of_a_command_runs_in_the_shell_of_the_user() {
    let name = fresh_name();
    let done = run(&["run", &name, "-c", "echo $((1 + 2)) | cat"]);
    assert_eq!(done.assert_code(0).stdout, "3\n");
    let mut command = program(&["run", &name, "-c", "exit 1"]);
    command.env("SHELL", "/bin/echo");
    assert_eq!(run_command(command).assert_code(0).stdout, "-c exit 1\n");
    // As the arguments of a command, for example a name of a file.
    let mut command = program(&["run", &name, "-c"]);
    command.arg(OsStr::from_bytes(b"exit 3 # Z\xfcrich"));
    run_command(command).assert_code(3);
}

#[test]
fn environment_describes_the_lock() {
    let (name, sequence) = (fresh_name(), TempObject::create("SEQUENCE", ""));
    let script = "echo $ADVISORY_LOCK_NAME/$ADVISORY_LOCK_KEY/$ADVISORY_LOCK_MODE/$ADVISORY_LOCK_TOKEN/$ADVISORY_LOCK_PID";
    let token = format!("--token={}", sequence.name);
    let arguments = [
        "run", &name, "-s", &token, "--part=4", "--", "sh", "-c", script,
    ];
    let key = LockKey::from((&*name, 4));
    let advisory_locking::RawLockKey::Single(number) = key.raw() else {
        panic!("{key}")
    };
    for token in 1..=2 {
        let done = run(&arguments);
        let expected = format!("{name}/4/{number}/shared/{token}/");
        assert!(
            done.assert_code(0).stdout.starts_with(&expected),
            "{done:?}"
        );
    }
    let done = run(&["run", &name, "--token=no_such_sequence", "--", "true"]);
    done.assert_code(76).assert_stderr("no_such_sequence");
}

#[test]
fn sequence_whose_numbers_may_decrease_is_refused() {
    let name = fresh_name();
    for definition in ["INCREMENT -1", "CYCLE", "CACHE 2"] {
        let sequence = TempObject::create("SEQUENCE", definition);
        let token = format!("--token={}", sequence.name);
        let done = run(&["run", &name, &token, "--", "echo", "ran"]);
        done.assert_code(64).assert_stderr("counts up");
        assert_eq!(done.stdout, "", "{definition}");
    }
    connect().assert_soon_free(&LockKey::from(&*name), "the refusal");
}

/// The token of a surrounding lock is not one of this lock.
#[test]
fn token_of_a_surrounding_run_is_not_inherited() {
    let (outer, inner) = (fresh_name(), fresh_name());
    let sequence = TempObject::create("SEQUENCE", "");
    let token = format!("--token={}", sequence.name);
    let program = env!("CARGO_BIN_EXE_advisory-lock");
    let command = ["sh", "-c", "echo ${ADVISORY_LOCK_TOKEN-none}"];
    let nested = [
        &["run", &*outer, &token, "--", program, "run", &inner, "--"][..],
        &command,
    ];
    assert_eq!(run(&nested.concat()).assert_code(0).stdout, "none\n");
}

/// As `execvp`, `env` and flock(1) do.
#[test]
fn script_without_an_interpreter_runs_with_sh() {
    let script = std::env::temp_dir().join(fresh_name());
    fs::write(&script, "echo \"$1|$2\"; exit 7\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let name = fresh_name();
    let path = script.to_str().unwrap();
    let done = run(&["run", &name, "--", path, "a b", "-c"]);
    assert_eq!(done.assert_code(7).stdout, "a b|-c\n");
    fs::remove_file(script).unwrap();
}

#[test]
fn held_lock_is_a_conflict() {
    let name = fresh_name();
    let mut holder = connect();
    let guard = holder
        .acquire_advisory_lock(&*name, LockOptions::no_wait())
        .unwrap();
    for (options, code) in [
        (&["-n"][..], 75),
        (&["-w", "0.05"], 75),
        (&["-w", "50ms", "--block"], 75),
        (&["-n", "-E", "3"], 3),
        (&["-n", "-s"], 75),
        (&["--skip"], 0),
        (&["--skip", "-w", "50ms"], 0),
    ] {
        let arguments = [&["run", &name], options, &["--", "echo", "ran"]].concat();
        let done = run_until_shown(&arguments, "held by pid");
        assert_eq!(done.assert_code(code).stdout, "", "{options:?}");
        done.assert_stderr("held by pid");
    }
    let done = run(&["run", &name, "--skip", "-q", "--", "echo", "ran"]);
    assert_eq!((&*done.assert_code(0).stdout, &*done.stderr), ("", ""));
    run_until_shown(&["try", &name], "held by pid")
        .assert_code(75)
        .assert_stderr("held by pid");
    run(&["try", &name, "--json"])
        .assert_code(75)
        .assert_stdout("\"free\":false");
    run(&["wait", &name, "-w", "50ms"]).assert_code(75);
    guard.release().unwrap();
    run(&["try", &name]).assert_code(0);
    run(&["wait", &name]).assert_code(0);
    assert!(connect().is_free(&LockKey::from(&*name)));
}

/// A shell job and a Rust service exclude each other.
#[test]
fn command_excludes_the_library() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let running = Running::start(program(&["run", &name, "--", "sleep", &sleep]));
    let command = wait_for_sleep(&sleep);
    let mut conn = connect();
    let granted = conn.try_acquire_advisory_lock(&*name, LockOptions::no_wait());
    assert!(granted.unwrap().is_none());
    send(command, Signal::TERM);
    running.wait().assert_code(143);
    let granted = conn.try_acquire_advisory_lock(&*name, LockOptions::no_wait());
    assert!(granted.unwrap().is_some());
}

#[test]
fn waiting_run_starts_after_the_release() {
    for block in [&["--block"][..], &[]] {
        let name = fresh_name();
        let (mut holder, mut observer) = (connect(), connect());
        let guard = holder
            .acquire_advisory_lock(&*name, LockOptions::no_wait())
            .unwrap();
        let arguments = [&["run", &name], block, &["--", "true"]].concat();
        let running = Running::start(program(&arguments));
        wait_for_run(&mut observer, &name);
        guard.release().unwrap();
        running.wait().assert_code(0);
        observer.assert_soon_free(&LockKey::from(&*name), "the command");
    }
}

/// Waits until the session of a `run` has made an attempt.
pub(crate) fn wait_for_run(observer: &mut impl Observe, name: &str) {
    let query = format!(
        "(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'advisory-lock run {name}' \
         AND query LIKE '%advisory_lock%')"
    );
    eventually("the program asks for the lock", || {
        observer.number(&query) > 0
    });
}

#[test]
fn nested_run_of_one_lock_is_refused() {
    let (name, other, program) = (
        fresh_name(),
        fresh_name(),
        env!("CARGO_BIN_EXE_advisory-lock"),
    );
    let nested = |outer: &[&str], inner: &[&str]| {
        // A nested run that is not refused must not wait for ever.
        let limit = ["-w", "30s", "--", "true"];
        let arguments = [outer, &["--", program], inner, &limit].concat();
        run(&arguments)
    };
    let done = nested(&["run", &name], &["run", &name]);
    done.assert_code(64).assert_stderr("would wait for itself");
    let between = nested(
        &["run", &name],
        &["run", &other, "--", program, "run", &name],
    );
    between.assert_code(64);
    nested(&["run", "-s", &name], &["run", &name]).assert_code(64);
    nested(&["run", "-s", &name], &["run", "-s", &name]).assert_code(0);
    nested(&["run", &name], &["run", &other]).assert_code(0);
}

/// Such as a daemon that the command of an earlier `run` has started.
#[test]
fn process_that_outlives_its_lock_is_told_the_variable() {
    let name = fresh_name();
    let key = run(&["key", &name]).assert_code(0).stdout.trim().to_owned();
    let mut command = program(&["run", &name, "--", "true"]);
    command.env("ADVISORY_LOCK_HELD", format!("{key}/exclusive"));
    run_command(command)
        .assert_code(64)
        .assert_stderr("unset ADVISORY_LOCK_HELD")
        .assert_stderr("was released");
}

#[test]
fn nested_wait_for_one_lock_is_refused() {
    let (name, program) = (fresh_name(), env!("CARGO_BIN_EXE_advisory-lock"));
    let wait = ["--", program, "wait", &*name, "-w", "1s"];
    run(&[&["run", &*name], &wait[..]].concat())
        .assert_code(64)
        .assert_stderr("would wait for itself");
}

/// An idle session of this role would be ended.
#[test]
fn idle_session_timeout_does_not_end_the_lock() {
    let (role, name, sleep) = (TempRole::create(), fresh_name(), fresh_sleep());
    let mut observer = connect();
    if timeout_settings(&mut observer).contains(&"idle_session_timeout") {
        role.set("idle_session_timeout = '3s'");
    }
    let mut command = program(&["run", &name, "--check-interval=1h", "--", "sleep", &sleep]);
    command.env("DATABASE_URL", role.url(&url()));
    let running = Running::start(command);
    let pid = wait_for_sleep(&sleep);
    let key = LockKey::from(&*name);
    let idle = format!(
        "(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'advisory-lock run {name}' \
         AND clock_timestamp() - state_change > '5s')"
    );
    eventually("the session is idle for long, or has ended", || {
        observer.number(&idle) == 1 || observer.is_free(&key)
    });
    assert!(!observer.is_free(&key));
    send(pid, Signal::KILL);
    running.wait().assert_code(137);
}

#[test]
fn role_without_permission_is_refused() {
    let (database, role) = (TempDatabase::create(), TempRole::create());
    database
        .connect()
        .run("REVOKE EXECUTE ON FUNCTION pg_try_advisory_lock(int8) FROM PUBLIC");
    let url = role.url(&database.url());
    let done = run_on(&url, &["run", "a", "--no-pooler-check", "--", "true"]);
    done.assert_code(77).assert_stderr("permission denied");
}
