//! `run` at a terminal, where the command stays in the foreground, and `watch`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use advisory_locking::LockKey;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use testkit::observer::Observe;
use testkit::proxy::{Direction, Proxy};
use testkit::server::{connect, eventually, fresh_name};

use crate::processes::{fresh_sleep, wait_for_sleep, wait_until_none_sleeps};
use crate::program::{Running, program};

/// A terminal: the end of its user, and the end of the program.
fn terminal() -> (File, OwnedFd) {
    // The terminal ends when its last descriptor is closed. Processes of other tests must not
    // inherit one.
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let program = open(name, flags, Mode::empty()).unwrap();
    (File::from(user), program)
}

/// Returns a command that has the terminal as its controlling terminal. A shell shows a signal that
/// ended the program as a code.
fn at_terminal(terminal: OwnedFd, arguments: &[&str]) -> Command {
    let shell = ["--ctty", "--wait", "sh", "-c", "trap : INT; \"$@\"", "sh"];
    let mut command = in_a_session(&shell, arguments);
    command.stdin(Stdio::from(terminal));
    command
}

/// Returns a command in a session of its own, which has no terminal by default.
fn in_a_session(options: &[&str], arguments: &[&str]) -> Command {
    let program = program(arguments);
    let mut command = Command::new("setsid");
    command
        .args(options)
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null());
    command
}

#[test]
fn command_may_read_from_the_terminal() {
    let (mut user, terminal) = terminal();
    let name = fresh_name();
    let script = "read code; exit $code";
    let running = Running::start(at_terminal(terminal, &["run", &name, "-c", script]));
    user.write_all(b"7\n").unwrap();
    running.wait().assert_code(7);
}

#[test]
fn interrupt_of_the_terminal_ends_the_command() {
    let (mut user, terminal) = terminal();
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let running = Running::start(at_terminal(
        terminal,
        &["run", &name, "--", "sleep", &sleep],
    ));
    wait_for_sleep(&sleep);
    user.write_all(b"\x03").unwrap();
    running.wait().assert_code(130);
    wait_until_none_sleeps(&sleep);
    connect().assert_soon_free(&LockKey::from(&*name), "an interrupt");
}

/// Without a terminal, only the program can send the signal to the command.
#[test]
fn interrupt_without_a_terminal_ends_a_foreground_command() {
    for signal in [Signal::INT, Signal::QUIT] {
        let (name, sleep) = (fresh_name(), fresh_sleep());
        let arguments = ["run", &name, "--foreground", "--", "sleep", &sleep];
        let running = Running::start(in_a_session(&[], &arguments));
        wait_for_sleep(&sleep);
        running.signal(signal);
        running.wait().assert_code(128 + signal.as_raw());
        wait_until_none_sleeps(&sleep);
    }
}

/// An interactive program, such as `psql`, handles the interrupt and goes on.
///
/// The user repeats the interrupt until the command exits: bash runs no trap if its child exits by
/// itself at that moment (seen with 5.2.15).
#[test]
fn repeated_interrupt_of_the_terminal_kills_no_command() {
    let (mut user, terminal) = terminal();
    let ready = std::env::temp_dir().join(fresh_name());
    let script = format!(
        "n=0; trap 'n=$((n + 1)); [ $n = 3 ] && exit 9' INT; echo > '{}'; \
         while :; do sleep 0.02; done",
        ready.display()
    );
    let name = fresh_name();
    let mut running = Running::start(at_terminal(terminal, &["run", &name, "-c", &script]));
    running.wait_until("the command handles interrupts", || ready.exists());
    eventually("the command exits", || {
        // It fails if the program has closed its end of the terminal.
        let _ = user.write_all(b"\x03");
        !running.lives()
    });
    running.wait().assert_code(9);
    std::fs::remove_file(ready).unwrap();
}

/// The screen shows the last list until the next one has arrived, also if that takes long.
#[test]
fn watch_clears_the_screen_with_the_next_list() {
    for (variable, value, clears) in [
        ("TERM", "xterm", true),
        ("COLUMNS", "0", true),
        ("TERM", "dumb", false),
    ] {
        let (mut user, terminal) = terminal();
        let proxy = Proxy::start();
        proxy.hold_from("pg_locks");
        let mut command = program(&["watch", "--count=1"]);
        command
            .env("DATABASE_URL", proxy.url())
            .env("TERM", "xterm")
            .env_remove("COLUMNS")
            .env(variable, value)
            .stdout(terminal);
        let mut child = command.spawn().unwrap();
        drop(command);
        proxy.wait_until_held(Direction::ToServer);
        let written = rustix::io::ioctl_fionread(&user).unwrap();
        assert_eq!(written, 0, "{value}: written before the reply");
        proxy.forward();
        let mut shown = Vec::new();
        // The end of a terminal is an error.
        let _ = user.read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown);
        assert_eq!(shown.contains("\x1b[2J"), clears, "{value}: {shown:?}");
        assert!(shown.contains("KEY"), "{value}: {shown:?}");
        assert!(child.wait().unwrap().success());
    }
}
