//! The lock after the end of the program, while its command or a descendant lives.

use advisory_locking::LockKey;
use rustix::process::Signal;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_name};

use crate::processes::{fresh_sleep, send, wait_for_sleep, wait_until_none_sleeps};
use crate::program::{Running, program, run};

#[test]
fn killed_program_leaves_the_lock_to_its_command() {
    let (name, first, second) = (fresh_name(), fresh_sleep(), fresh_sleep());
    let (key, mut observer) = (LockKey::from(&*name), connect());
    let script = format!("sleep {first} & sleep {second}; true");
    let running = Running::start(program(&["run", &name, "-c", &script]));
    let (background, foreground) = (wait_for_sleep(&first), wait_for_sleep(&second));
    running.kill();
    assert_held(&mut observer, &key);
    send(foreground, Signal::KILL);
    wait_until_none_sleeps(&second);
    assert_held(&mut observer, &key);
    send(background, Signal::KILL);
    observer.assert_soon_free(&key, "the last descendant");
}

/// A server that has lost a client notices it at once, so one query after a round trip is enough.
#[track_caller]
fn assert_held(observer: &mut impl Observe, key: &LockKey) {
    run(&["ls"]).assert_code(0);
    assert!(!observer.is_free(key));
}

#[test]
fn closed_descriptor_frees_the_lock_with_the_program() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let running = Running::start(program(&["run", &name, "--close", "--", "sleep", &sleep]));
    let command = wait_for_sleep(&sleep);
    running.kill();
    connect().assert_soon_free(&LockKey::from(&*name), "the program");
    send(command, Signal::KILL);
}

#[test]
fn background_process_keeps_the_lock_after_the_command() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let (key, mut observer) = (LockKey::from(&*name), connect());
    let script = format!("sleep {sleep} & exit 3");
    let running = Running::start(program(&["run", &name, "-c", &script]));
    let pid = wait_for_sleep(&sleep);
    running.wait().assert_code(3).assert_stderr("keep the lock");
    assert_held(&mut observer, &key);
    send(pid, Signal::KILL);
    observer.assert_soon_free(&key, "the background process");
}

/// In the foreground the command has no group that the signal could end.
#[test]
fn signal_in_the_foreground_ends_the_wait_for_descendants() {
    for signal in [Signal::TERM, Signal::INT] {
        assert_ends_the_wait(signal, &["--foreground"], |sleep| {
            format!("{sleep} & exit 3")
        });
    }
}

/// A daemon has left the group of the command, so that the signal would end nothing.
#[test]
fn term_ends_the_wait_for_descendants_of_another_group() {
    assert_ends_the_wait(Signal::TERM, &[], |sleep| {
        format!("setsid {sleep} & exit 3")
    });
}

/// The process that `script` leaves behind keeps the lock.
fn assert_ends_the_wait(signal: Signal, options: &[&str], script: impl FnOnce(&str) -> String) {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let (key, mut observer) = (LockKey::from(&*name), connect());
    let script = script(&format!("sleep {sleep}"));
    let arguments = ["--wait-for-descendants", "-c", &script];
    let running = Running::start(program(&[&["run", &*name], options, &arguments].concat()));
    let pid = wait_for_sleep(&sleep);
    running.wait_until_childless();
    running.signal(signal);
    running.wait().assert_code(3).assert_stderr("keep the lock");
    assert_held(&mut observer, &key);
    send(pid, Signal::KILL);
    observer.assert_soon_free(&key, "the background process");
}

#[test]
fn wait_for_descendants_waits_for_background_processes() {
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let script = format!("sleep {sleep} & exit 3");
    let arguments = ["run", &name, "--wait-for-descendants", "-c", &script];
    let mut running = Running::start(program(&arguments));
    let pid = wait_for_sleep(&sleep);
    assert!(running.lives());
    assert!(!connect().is_free(&LockKey::from(&*name)));
    send(pid, Signal::KILL);
    running.wait().assert_code(3);
    assert!(connect().is_free(&LockKey::from(&*name)));
}
