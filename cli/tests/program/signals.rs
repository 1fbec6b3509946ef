//! A signal in each phase of `run`: the right exit code, no orphan, no lock left.
//!
//! `ADVISORY_LOCKING_SIGNAL_ROUNDS` is the number of rounds of each phase, 20 by default.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions};
use rustix::process::Signal;
use testkit::observer::Observe;
use testkit::proxy::{Direction, Policy, Proxy};
use testkit::server::{connect, eventually, fresh_name, url};

use crate::processes::{fresh_sleep, ignores, sleeping, wait_for_sleep, wait_until_none_sleeps};
use crate::program::{Running, program, run, run_command};
use crate::run::wait_for_run;

fn rounds() -> u32 {
    let variable = std::env::var("ADVISORY_LOCKING_SIGNAL_ROUNDS");
    variable.map_or(20, |text| text.parse().expect("a number"))
}

/// The signals, in turn.
fn signal_of(round: u32) -> (Signal, i32) {
    let signals = [
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::USR1,
    ];
    let signal = signals[usize::try_from(round).unwrap() % signals.len()];
    (signal, 128 + signal.as_raw())
}

#[test]
fn signal_before_the_connection_ends_the_program() {
    for round in 0..rounds() {
        let (signal, code) = signal_of(round);
        let (name, sleep, proxy) = (fresh_name(), fresh_sleep(), Proxy::start());
        proxy.set(Direction::ToServer, Policy::Hold);
        let mut command = program(&["run", &name, "--", "sleep", &sleep]);
        command.env("DATABASE_URL", proxy.url());
        let running = Running::start(command);
        proxy.wait_until_held(Direction::ToServer);
        running.signal(signal);
        running.wait().assert_code(code);
        assert!(sleeping(&sleep).is_empty());
    }
}

#[test]
fn signal_during_the_wait_ends_the_program() {
    let mut observer = connect();
    for round in 0..rounds() {
        let (signal, code) = signal_of(round);
        let (name, sleep, mut holder) = (fresh_name(), fresh_sleep(), connect());
        let key = LockKey::from(&*name);
        let guard = holder
            .acquire_advisory_lock(&key, LockOptions::no_wait())
            .unwrap();
        let block = if round % 2 == 0 {
            "--block"
        } else {
            "--poll-interval=20ms"
        };
        let running = Running::start(program(&["run", &name, block, "--", "sleep", &sleep]));
        if round % 2 == 0 {
            observer.wait_until_waiters(&key, 1);
        } else {
            wait_for_run(&mut observer, &name);
        }
        running.signal(signal);
        running.wait().assert_code(code);
        // The wait has left the server's queue, not only the program.
        observer.wait_until_waiters(&key, 0);
        guard.release().unwrap();
        observer.assert_soon_free(&key, "a signal during the wait");
        assert!(sleeping(&sleep).is_empty());
    }
}

/// PostgreSQL 13 does not notice by itself that the client has gone.
#[test]
fn signal_to_wait_leaves_the_queue() {
    let (name, mut holder, mut observer) = (fresh_name(), connect(), connect());
    let key = LockKey::from(&*name);
    let guard = holder
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .unwrap();
    let running = Running::start(program(&["wait", &name, "--block"]));
    observer.wait_until_waiters(&key, 1);
    running.signal(Signal::TERM);
    running.wait().assert_code(143);
    observer.wait_until_waiters(&key, 0);
    guard.release().unwrap();
}

/// The lock is granted and the signal arrives at almost the same time.
#[test]
fn signal_that_meets_the_grant_leaves_no_orphan() {
    let mut observer = connect();
    for round in 0..rounds() {
        let (name, sleep, mut holder) = (fresh_name(), fresh_sleep(), connect());
        let key = LockKey::from(&*name);
        let guard = holder
            .acquire_advisory_lock(&key, LockOptions::no_wait())
            .unwrap();
        let wait = if round % 2 == 0 {
            "--block"
        } else {
            "--poll-interval=1ms"
        };
        let running = Running::start(program(&["run", &name, wait, "--", "sleep", &sleep]));
        wait_for_run(&mut observer, &name);
        guard.release().unwrap();
        thread::sleep(Duration::from_micros(u64::from(round * 7 % 40) * 200));
        running.signal(Signal::TERM);
        running.wait().assert_code(143);
        wait_until_none_sleeps(&sleep);
        observer.assert_soon_free(&key, "a signal at the grant");
    }
}

/// The signal arrives with the grant: its reply is held until then.
#[test]
fn command_does_not_start_after_a_signal() {
    for _ in 0..rounds() {
        let (name, sleep, proxy) = (fresh_name(), fresh_sleep(), Proxy::start());
        proxy.hold_from("pg_try_advisory_lock");
        let mut command = program(&["run", &name, "--no-pooler-check", "--", "sleep", &sleep]);
        command.env("DATABASE_URL", proxy.url());
        let running = Running::start(command);
        proxy.wait_until_held(Direction::ToServer);
        running.signal(Signal::TERM);
        proxy.forward();
        running.wait().assert_code(143);
        assert!(sleeping(&sleep).is_empty());
        connect().assert_soon_free(&LockKey::from(&*name), "the signal");
    }
}

/// The lock is granted, and the session is not prepared yet. The interpreter of the command is
/// missing, so that an attempt to start it would change the exit code.
#[test]
fn command_does_not_start_after_a_signal_at_the_grant() {
    let command_file = std::env::temp_dir().join(fresh_name());
    fs::write(&command_file, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&command_file, Permissions::from_mode(0o755)).unwrap();
    let path = command_file.to_str().unwrap();
    run(&["run", &fresh_name(), "--", path]).assert_code(127);
    for _ in 0..rounds() {
        let (name, proxy) = (fresh_name(), Proxy::start());
        proxy.hold_from("idle_session_timeout");
        let mut command = program(&["run", &name, "--no-pooler-check", "--", path]);
        command.env("DATABASE_URL", proxy.url());
        let running = Running::start(command);
        proxy.wait_until_held(Direction::ToServer);
        running.signal(Signal::TERM);
        proxy.forward();
        running.wait().assert_code(143);
        connect().assert_soon_free(&LockKey::from(&*name), "the signal");
    }
    fs::remove_file(command_file).unwrap();
}

#[test]
fn killed_waiter_leaves_the_queue() {
    let (name, sleep, mut holder) = (fresh_name(), fresh_sleep(), connect());
    let (key, mut observer) = (LockKey::from(&*name), connect());
    let guard = holder
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .unwrap();
    let running = Running::start(program(&["run", &name, "--block", "--", "sleep", &sleep]));
    observer.wait_until_waiters(&key, 1);
    running.kill();
    if testkit::timeouts::notices_disconnects(&mut observer) {
        observer.wait_until_waiters(&key, 0);
    }
    guard.release().unwrap();
    observer.assert_soon_free(&key, "a killed waiter");
    assert!(sleeping(&sleep).is_empty());
}

/// The command and its own children are one process group.
#[test]
fn signal_to_the_program_reaches_all_processes() {
    let mut observer = connect();
    for round in 0..rounds() {
        let (signal, code) = signal_of(round);
        let (name, first, second) = (fresh_name(), fresh_sleep(), fresh_sleep());
        // An interactive shell would ignore INT and QUIT in its background processes.
        let script = format!("sleep {first} | sleep {second}");
        let running = Running::start(program(&["run", &name, "-c", &script]));
        wait_for_sleep(&first);
        wait_for_sleep(&second);
        running.signal(signal);
        running.wait().assert_code(code);
        wait_until_none_sleeps(&first);
        wait_until_none_sleeps(&second);
        observer.assert_soon_free(&LockKey::from(&*name), "a signal to the command");
    }
}

#[test]
fn trap_of_the_command_decides_the_code() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let script = format!("trap 'exit 3' TERM; sleep {sleep} & wait");
    let running = Running::start(program(&["run", &name, "-c", &script]));
    wait_for_sleep(&sleep);
    running.signal(Signal::TERM);
    running.wait().assert_code(3);
    wait_until_none_sleeps(&sleep);
}

#[test]
fn second_term_kills_a_command_that_ignores_it() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let script = format!("trap '' TERM; sleep {sleep}; sleep {sleep}");
    let running = Running::start(program(&["run", &name, "-c", &script]));
    wait_for_sleep(&sleep);
    running.signal(Signal::TERM);
    // Two pending signals of one number are one, so it is repeated until the end.
    eventually("the end of the command", || {
        let has_ended = sleeping(&sleep).is_empty();
        if !has_ended {
            running.signal(Signal::TERM);
        }
        has_ended
    });
    running.wait().assert_code(137);
}

#[test]
fn signal_during_the_release_keeps_the_code() {
    for round in 0..rounds() {
        let (signal, _) = signal_of(round);
        let (name, proxy) = (fresh_name(), Proxy::start());
        proxy.hold_from("pg_advisory_unlock");
        let arguments = [
            "run",
            &name,
            "--no-pooler-check",
            "--",
            "sh",
            "-c",
            "exit 5",
        ];
        let mut command = program(&arguments);
        command.env("DATABASE_URL", proxy.url());
        let running = Running::start(command);
        proxy.wait_until_held(Direction::ToServer);
        running.signal(signal);
        proxy.forward();
        running.wait().assert_code(5);
        connect().assert_soon_free(&LockKey::from(&*name), "the release");
    }
}

/// The caller of the program has blocked TERM and left it so.
#[test]
fn blocked_signal_is_passed_on() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let program_path = env!("CARGO_BIN_EXE_advisory-lock");
    let script = format!("exec '{program_path}' run {name} -- sleep {sleep}");
    let mut command = std::process::Command::new("env");
    command.args(["--block-signal=TERM", "sh", "-c", &script]);
    let running = Running::start(command);
    let pid = wait_for_sleep(&sleep);
    running.signal(Signal::TERM);
    eventually("the end of the command", || sleeping(&sleep) != [pid]);
    running.wait().assert_code(143);
}

/// Without a pidfd, CHLD shows the end of the command.
#[test]
fn blocked_chld_is_unblocked() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let mut command = std::process::Command::new("env");
    let program_path = env!("CARGO_BIN_EXE_advisory-lock");
    command.args(["--block-signal=CHLD", program_path, "run", &name]);
    command
        .args(["--", "sleep", &sleep])
        .env("DATABASE_URL", url());
    let running = Running::start(command);
    // While the program starts its command, its C library blocks all signals.
    wait_for_sleep(&sleep);
    eventually("CHLD is unblocked", || !running.blocks(Signal::CHILD));
    running.signal(Signal::TERM);
    running.wait().assert_code(143);
}

/// As `nohup` starts a program.
#[test]
fn ignored_signal_stays_ignored() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let program_path = env!("CARGO_BIN_EXE_advisory-lock");
    let script = format!("trap '' HUP; exec '{program_path}' run {name} -- sleep {sleep}");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]);
    let running = Running::start(command);
    let pid = wait_for_sleep(&sleep);
    assert!(running.ignores(Signal::HUP), "the program");
    assert!(ignores(pid, Signal::HUP), "the command");
    running.signal(Signal::TERM);
    running.wait().assert_code(143);
}

/// A caller that reaps no children, such as a script with `trap '' CHLD`.
#[test]
fn ignored_chld_leaves_the_code_of_the_command() {
    let name = fresh_name();
    let mut command = std::process::Command::new("env");
    let program_path = env!("CARGO_BIN_EXE_advisory-lock");
    let arguments = ["run", &name, "--", "sh", "-c", "exit 3"];
    command.args(["--ignore-signal=CHLD", program_path]);
    command.args(arguments).env("DATABASE_URL", url());
    run_command(command).assert_code(3);
}

/// A stopped process handles a signal after CONT only, as with `timeout`.
#[test]
fn stopped_command_handles_the_signal() {
    for foreground in [&[][..], &["--foreground"]] {
        let (name, ready) = (fresh_name(), std::env::temp_dir().join(fresh_name()));
        let script = format!(
            "trap 'exit 3' TERM; echo > '{}'; kill -STOP $$; sleep 600",
            ready.display()
        );
        let arguments = [&["run", &*name], foreground, &["-c", &script]].concat();
        let mut running = Running::start(program(&arguments));
        running.wait_until("the command runs", || ready.exists());
        running.wait_until_children_stop();
        running.signal(Signal::TERM);
        running.wait().assert_code(3);
        fs::remove_file(ready).unwrap();
    }
}

/// systemd sends TERM to each process of a service, and a surrounding `run` passes it on.
#[test]
fn request_that_arrives_twice_at_once_kills_no_command() {
    let (name, ready) = (fresh_name(), std::env::temp_dir().join(fresh_name()));
    let script = format!(
        "trap 'sleep 1; exit 3' TERM INT; echo > '{}'; while :; do sleep 0.02; done",
        ready.display()
    );
    let mut running = Running::start(program(&["run", &name, "-c", &script]));
    running.wait_until("the command runs", || ready.exists());
    // Both are pending when the program goes on. The kernel would merge two of one kind.
    for signal in [Signal::STOP, Signal::TERM, Signal::INT, Signal::CONT] {
        running.signal(signal);
    }
    running.wait().assert_code(3);
    fs::remove_file(ready).unwrap();
}

/// So Ctrl-C ends a script of bash, too, and a service that systemd stops has not failed.
#[test]
fn signal_that_ends_the_command_or_the_wait_ends_the_program() {
    for (signal, ends) in [
        (Signal::TERM, true),
        (Signal::INT, true),
        (Signal::HUP, true),
        (Signal::QUIT, false),
    ] {
        let (name, sleep) = (fresh_name(), fresh_sleep());
        let expected = ends.then_some(signal.as_raw());
        let running = Running::start(program(&["run", &name, "--", "sleep", &sleep]));
        wait_for_sleep(&sleep);
        let waiting = Running::start(program(&["run", &name, "--block", "--", "true"]));
        connect().wait_until_waiters(&LockKey::from(&*name), 1);
        for program in [waiting, running] {
            program.signal(signal);
            let done = program.wait();
            done.assert_code(128 + signal.as_raw());
            assert_eq!(done.signal, expected, "{done:?}");
        }
        wait_until_none_sleeps(&sleep);
    }
}

/// Only the command was sent the signal.
#[test]
fn signal_to_the_command_alone_is_an_exit_code() {
    let done = run(&["run", &fresh_name(), "-c", "kill -TERM $$"]);
    assert_eq!((done.code, done.signal), (Some(143), None), "{done:?}");
}
