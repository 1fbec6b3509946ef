//! The reaction to a lock that is lost while the command runs.

use std::thread;
use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions};
use rustix::process::Signal;
use testkit::observer::Observe;
use testkit::proxy::{Direction, Policy, Proxy};
use testkit::server::{connect, eventually, fresh_name};

use crate::processes::{fresh_sleep, send, wait_for_sleep, wait_until_none_sleeps};
use crate::program::{Running, program, run};

#[test]
fn terminated_session_ends_the_command() {
    for (options, code) in [
        (&[][..], 79),
        (&["--lost-exit-code=4"], 4),
        // A time out of reach, which must not overflow.
        (&["--kill-after=200000000000000d"], 79),
    ] {
        let (name, first, second) = (fresh_name(), fresh_sleep(), fresh_sleep());
        let script = format!("sleep {first} | sleep {second}");
        let arguments = [&["run", &name], options, &["-c", &script]].concat();
        let running = Running::start(program(&arguments));
        wait_for_sleep(&first);
        wait_for_sleep(&second);
        connect().terminate_holder(&LockKey::from(&*name));
        let done = running.wait();
        // The reason of the server.
        done.assert_code(code)
            .assert_stderr("lock lost: ")
            .assert_stderr("terminating connection due to administrator command");
        wait_until_none_sleeps(&first);
        wait_until_none_sleeps(&second);
    }
}

/// The command ignores TERM, and succeeds in the end.
#[test]
fn command_that_ignores_term_is_killed_after_the_grace() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let script = format!("trap '' TERM; sleep {sleep}; exit 0");
    let arguments = ["run", &name, "--kill-after=200ms", "-c", &script];
    let running = Running::start(program(&arguments));
    wait_for_sleep(&sleep);
    connect().terminate_holder(&LockKey::from(&*name));
    running.wait().assert_code(79);
    wait_until_none_sleeps(&sleep);
}

/// The command ends at once, and leaves a process in its group.
#[test]
fn background_process_is_killed_after_the_grace() {
    for close in [&[][..], &["--close"]] {
        let (name, sleep) = (fresh_name(), fresh_sleep());
        let script = format!("(trap '' TERM; exec sleep {sleep}) & wait");
        let options = ["--kill-after=200ms", "-c", &script];
        let arguments = [&["run", &name], close, &options].concat();
        let running = Running::start(program(&arguments));
        wait_for_sleep(&sleep);
        connect().terminate_holder(&LockKey::from(&*name));
        running.wait().assert_code(79).assert_stderr("lock lost");
        wait_until_none_sleeps(&sleep);
    }
}

/// The process has a parent in another session, which does not reap it, as the process 1 of many
/// containers.
#[test]
fn killed_process_that_nothing_reaps_does_not_delay_the_end() {
    let (name, parent, killed) = (fresh_name(), fresh_sleep(), fresh_sleep());
    let unreaped = format!("(trap '' TERM; exec sleep {killed}) & exec setsid sleep {parent}");
    let script = format!("sh -c \"{unreaped}\" & trap '' TERM; sleep 600; true");
    let options = ["--kill-after=200ms", "-c", &script];
    let running = Running::start(program(&[&["run", &*name], &options[..]].concat()));
    wait_for_sleep(&killed);
    let parent = wait_for_sleep(&parent);
    connect().terminate_holder(&LockKey::from(&*name));
    running.wait().assert_code(79).assert_stderr("lock lost");
    wait_until_none_sleeps(&killed);
    send(parent, Signal::KILL);
}

/// The network hides the loss until the command has ended, and a background process lives.
#[test]
fn loss_counts_though_a_background_process_lives() {
    let (name, first, second) = (fresh_name(), fresh_sleep(), fresh_sleep());
    let (key, proxy) = (LockKey::from(&*name), Proxy::start());
    let script = format!("sleep {first} & sleep {second}; exit 0");
    let mut command = program(&["run", &name, "--check-interval=1h", "-c", &script]);
    command.env("DATABASE_URL", proxy.url());
    let running = Running::start(command);
    let background = wait_for_sleep(&first);
    let foreground = wait_for_sleep(&second);
    proxy.set(Direction::ToClient, Policy::Hold);
    connect().terminate_holder(&key);
    connect().assert_soon_free(&key, "the termination");
    send(foreground, Signal::KILL);
    running.wait_until_childless();
    proxy.forward();
    running.wait().assert_code(79).assert_stderr("lock lost");
    send(background, Signal::KILL);
}

/// The end of the session is noticed at the release, too.
#[test]
fn loss_counts_though_the_command_succeeds() {
    let name = fresh_name();
    let script = format!(
        "trap 'exit 0' TERM; '{}' kill {name} -q; sleep 600",
        env!("CARGO_BIN_EXE_advisory-lock")
    );
    run(&["run", &name, "-c", &script])
        .assert_code(79)
        .assert_stderr("lock lost");
}

/// On a stalled machine, a check may fail before the network does. So a file shows that the command
/// has run: its process may have ended.
#[test]
fn silent_network_ends_the_command() {
    let (name, sleep, proxy) = (fresh_name(), fresh_sleep(), Proxy::start());
    let ready = std::env::temp_dir().join(fresh_name());
    let script = format!("echo > '{}'; exec sleep {sleep}", ready.display());
    let options = ["--check-interval=500ms", "-c", &script];
    let mut command = program(&[&["run", &*name], &options[..]].concat());
    command.env("DATABASE_URL", proxy.url());
    let running = Running::start(command);
    eventually("the command runs", || ready.exists());
    let stall = proxy.stall();
    running.wait().assert_code(79).assert_stderr("lock lost");
    wait_until_none_sleeps(&sleep);
    std::fs::remove_file(ready).unwrap();
    drop(stall);
    connect().assert_soon_free(&LockKey::from(&*name), "the loss");
}

/// The user stops the program at the terminal while a check is under way. Its reply arrives, and
/// the program reads it after the limit.
#[test]
fn reply_that_arrived_while_the_program_was_stopped_is_no_loss() {
    let (name, sleep, proxy) = (fresh_name(), fresh_sleep(), Proxy::start());
    let options = ["--check-interval=3s", "--", "sleep", &sleep];
    let mut command = program(&[&["run", &*name], &options[..]].concat());
    command.env("DATABASE_URL", proxy.url());
    let mut running = Running::start(command);
    wait_for_sleep(&sleep);
    proxy.set(Direction::ToClient, Policy::Hold);
    proxy.wait_until_held(Direction::ToClient);
    running.signal(Signal::STOP);
    proxy.forward();
    let before = proxy.round_trips();
    // The time for the reply to a check is twice the interval.
    thread::sleep(Duration::from_millis(6_500));
    running.signal(Signal::CONT);
    running.wait_until("the checks go on", || proxy.round_trips() > before + 1);
    running.signal(Signal::TERM);
    running.wait().assert_code(143);
    wait_until_none_sleeps(&sleep);
}

/// From the text of an error in a log to the end of the holder's session, in two commands.
#[test]
fn two_commands_lead_from_an_error_to_the_end_of_the_holder() {
    let name = fresh_name();
    let (mut holder, mut waiter, mut observer) = (connect(), connect(), connect());
    let holder_pid = holder.pid();
    let guard = holder
        .acquire_advisory_lock(&*name, LockOptions::no_wait())
        .unwrap();
    let wait = LockOptions::wait_up_to(Duration::from_millis(20));
    let error: LockError = waiter
        .acquire_advisory_lock(&*name, wait)
        .map(drop)
        .unwrap_err();
    let log = error.to_string();
    let key = log
        .find('"')
        .map(|at| &log[at..])
        .and_then(|rest| rest.split(',').next());

    let done = run(&["who", "--key", key.expect("a key in the text")]);
    let command = done
        .assert_code(0)
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("To end the holder: advisory-lock "));
    let arguments: Vec<&str> = command.expect("a command").split(' ').collect();
    assert_eq!(arguments, ["kill", "--pid", &*holder_pid.to_string()]);
    run(&arguments)
        .assert_code(0)
        .assert_stdout("terminated pid");

    assert!(observer.is_free(&LockKey::from(&*name)));
    // A session releases its locks before it disappears.
    observer.wait_until_ended(holder_pid);
    eventually("the holder notices", || {
        waiter
            .try_acquire_advisory_lock(&*name, LockOptions::no_wait())
            .unwrap()
            .is_some()
    });
    assert!(guard.release().is_err());
}

/// A dead program must not leave its command behind when the session ends later.
#[test]
fn terminal_signal_and_loss_together_end_once() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let running = Running::start(program(&["run", &name, "--", "sleep", &sleep]));
    let mut observer = connect();
    wait_for_sleep(&sleep);
    running.signal(Signal::TERM);
    for pid in observer.holders(&LockKey::from(&*name)) {
        observer.terminate(pid);
    }
    let code = running.wait().code.unwrap();
    assert!(code == 143 || code == 79, "{code}");
    wait_until_none_sleeps(&sleep);
}
