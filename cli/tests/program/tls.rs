//! TLS, as libpq's `sslmode` selects it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use advisory_locking::LockKey;
use rustix::process::Signal;
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::server::fresh_name;
use testkit::tls::{Authority, accept_tls};

use crate::processes::{fresh_sleep, send, wait_for_sleep};
use crate::program::{Running, program, run_command, run_on};

fn write(authority: &Authority) -> String {
    let path = std::env::temp_dir().join(fresh_name());
    fs::write(&path, authority.to_pem()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn sslmode_selects_encryption_and_verification() {
    let cluster = ClusterGuard::acquire();
    let connect = |host: &str, parameters: &str| {
        let url = cluster.url().replace("127.0.0.1", host);
        run_on(&format!("{url}?{parameters}"), &["ls"])
    };
    // The server does not accept TLS yet.
    connect("localhost", "sslmode=prefer").assert_code(0);
    connect("localhost", "sslmode=require")
        .assert_code(69)
        .assert_stderr("TLS");

    let authority = accept_tls(&cluster);
    let root = write(&authority);
    let other = write(&Authority::new());
    let trusted = format!("sslrootcert={root}");
    let untrusted = format!("sslrootcert={other}");
    for mode in ["disable", "allow", "prefer", "require"] {
        connect("127.0.0.1", &format!("sslmode={mode}")).assert_code(0);
    }
    connect("localhost", &format!("sslmode=verify-full&{trusted}")).assert_code(0);
    connect("127.0.0.1", &format!("sslmode=verify-ca&{trusted}")).assert_code(0);
    // The certificate is not for this address.
    connect("127.0.0.1", &format!("sslmode=verify-full&{trusted}"))
        .assert_code(69)
        .assert_stderr("certificate");
    for mode in ["require", "verify-ca", "verify-full"] {
        connect("localhost", &format!("sslmode={mode}&{untrusted}"))
            .assert_code(69)
            .assert_stderr("certificate");
    }
    connect("localhost", "sslmode=verify-full")
        .assert_code(64)
        .assert_stderr("sslrootcert");
    connect("localhost", "sslmode=require&sslrootcert=/no/such/file").assert_code(64);
    connect("localhost", "sslmode=require&sslcert=/no/such/file").assert_code(0);
    connect("localhost", &format!("sslmode=require&sslcert={root}")).assert_code(64);

    // A command inherits the socket below TLS.
    let url = cluster.url().replace("127.0.0.1", "localhost");
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let mut command = program(&["run", &name, "--", "sleep", &sleep]);
    command.env(
        "DATABASE_URL",
        format!("{url}?sslmode=verify-full&{trusted}"),
    );
    let running = Running::start(command);
    let pid = wait_for_sleep(&sleep);
    let mut observer = cluster.connect();
    let encrypted = format!(
        "(SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE ssl AND application_name = 'advisory-lock run {name}')"
    );
    assert_eq!(observer.number(&encrypted), 1);
    running.kill();
    let key = LockKey::from(&*name);
    assert_eq!(observer.number(&encrypted), 1);
    assert!(!observer.is_free(&key));
    send(pid, Signal::KILL);
    observer.assert_soon_free(&key, "the command");

    cluster.connect().run("ALTER SYSTEM RESET ssl");
    cluster.ctl(&["-w", "restart"]);
    for path in [root, other] {
        fs::remove_file(Path::new(&path)).unwrap();
    }
}

/// libpq reads it if it verifies the certificate. Without it, a revoked certificate would be
/// accepted.
#[test]
fn default_revocation_list_is_an_error() {
    let home = std::env::temp_dir().join(fresh_name());
    let list = home.join(".postgresql/root.crl");
    fs::create_dir_all(home.join(".postgresql")).unwrap();
    fs::write(list, "").unwrap();
    let root = write(&Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let parameters = format!("sslmode=verify-ca&sslrootcert={root}&connect_timeout=1");
    let mut command = program(&["ls"]);
    command.env("HOME", &home).env(
        "DATABASE_URL",
        format!("postgres://u@127.0.0.1:{port}/d?{parameters}"),
    );
    run_command(command)
        .assert_code(64)
        .assert_stderr("root.crl");
    fs::remove_dir_all(home).unwrap();
    fs::remove_file(root).unwrap();
}
