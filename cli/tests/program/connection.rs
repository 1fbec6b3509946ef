//! Settings of connections: the environment, the service file, the password file.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::thread;

use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::Observe;
use testkit::server::{connect, fresh_name, url, with_parameters};

use crate::program::{Done, program, run_command};

/// A server that asks for a password, and refuses it with a text that contains it.
fn password_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = refuse(stream.unwrap());
        }
    });
    port
}

fn refuse(mut stream: impl Read + Write) -> std::io::Result<()> {
    read_message(&mut stream, 0)?;
    // AuthenticationCleartextPassword.
    stream.write_all(b"R\0\0\0\x08\0\0\0\x03")?;
    let password = read_message(&mut stream, 1)?;
    let password = String::from_utf8_lossy(&password)
        .trim_end_matches('\0')
        .to_owned();
    let fields = format!("SFATAL\0VFATAL\0C28P01\0Mrefused password {password}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    stream.write_all(&[b"E", &length[..], fields.as_bytes()].concat())
}

/// Reads a message whose type has this number of bytes, and returns its body.
fn read_message(stream: &mut impl Read, type_bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0; type_bytes + 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head[type_bytes..].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn ls(variables: &[(&str, &str)]) -> Done {
    let mut command = program(&["ls"]);
    command
        .env_remove("DATABASE_URL")
        .envs(variables.iter().copied());
    run_command(command)
}

fn file(text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let path = std::env::temp_dir().join(fresh_name());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn password_comes_from_url_environment_or_file() {
    let port = password_server();
    let port_text = port.to_string();
    let url = format!("postgres://u:in-url@127.0.0.1:{port}/d?sslmode=disable");
    ls(&[("DATABASE_URL", &url)])
        .assert_code(77)
        .assert_stderr("refused password in-url");

    let environment = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &*port_text),
        ("PGUSER", "u"),
        ("PGSSLMODE", "disable"),
    ];
    let with = |more: &[(&str, &str)]| ls(&[&environment, more].concat());
    with(&[("PGPASSWORD", "in-env")])
        .assert_code(77)
        .assert_stderr("refused password in-env");

    // The server asks for a password, and there is none.
    with(&[])
        .assert_code(77)
        .assert_stderr("no password is set");

    let line = format!("127.0.0.1:{port}:*:u:in-file\n");
    let private = file(&line, 0o600);
    let private_path = private.to_str().unwrap();
    with(&[("PGPASSFILE", private_path)])
        .assert_code(77)
        .assert_stderr("refused password in-file");
    // As libpq, which knows no encodings.
    let latin1 = file([b"# Z\xfcrich\n", line.as_bytes()].concat(), 0o600);
    with(&[("PGPASSFILE", latin1.to_str().unwrap())]).assert_stderr("refused password in-file");
    let open = file(&line, 0o644);
    with(&[("PGPASSFILE", open.to_str().unwrap())]).assert_stderr("0600");

    let service = file(
        format!(
            "[one]\nhost=127.0.0.1\nport={port}\nuser=u\nsslmode=disable\npassword=in-service\n"
        ),
        0o644,
    );
    let service_path = service.to_str().unwrap();
    ls(&[("PGSERVICEFILE", service_path), ("PGSERVICE", "one")])
        .assert_code(77)
        .assert_stderr("refused password in-service");
    ls(&[("PGSERVICEFILE", service_path), ("PGSERVICE", "two")])
        .assert_code(64)
        .assert_stderr("\"two\"");
    for path in [private, latin1, open, service] {
        fs::remove_file(path).unwrap();
    }
}

/// The file of the system may name another server.
#[test]
fn service_file_may_be_in_any_encoding() {
    let port = password_server();
    let section = |password| {
        let server = format!("host=127.0.0.1\nport={port}\nuser=u\nsslmode=disable");
        format!("[one]\n{server}\npassword={password}\n")
    };
    let latin1 = file(
        [b"# Z\xfcrich\n", section("of-user").as_bytes()].concat(),
        0o644,
    );
    let system = std::env::temp_dir().join(fresh_name());
    fs::create_dir(&system).unwrap();
    fs::write(system.join("pg_service.conf"), section("of-system")).unwrap();
    ls(&[
        ("PGSERVICEFILE", latin1.to_str().unwrap()),
        ("PGSYSCONFDIR", system.to_str().unwrap()),
        ("PGSERVICE", "one"),
    ])
    .assert_code(77)
    .assert_stderr("refused password of-user");
    fs::remove_file(latin1).unwrap();
    fs::remove_dir_all(system).unwrap();
}

/// The handshake fails. Without encryption, the server refuses the password.
#[test]
fn refusal_after_a_failed_handshake_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_message(&mut stream, 0).unwrap();
        stream.write_all(b"S").unwrap();
        drop(stream);
        let _ = refuse(listener.accept().unwrap().0);
    });
    let url = format!("postgres://u:one@127.0.0.1:{port}/d");
    ls(&[("DATABASE_URL", &url)])
        .assert_code(77)
        .assert_stderr("refused password one");
}

/// PgBouncer refuses a client without encryption so, with `client_tls_sslmode=require`.
#[test]
fn allow_encrypts_after_a_protocol_violation() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut plain, _) = listener.accept().unwrap();
        read_message(&mut plain, 0).unwrap();
        let fields = b"SFATAL\0C08P01\0MSSL required\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        let message = [b"E", &length[..], &fields[..]].concat();
        plain.write_all(&message).unwrap();
        let (mut encrypted, _) = listener.accept().unwrap();
        read_message(&mut encrypted, 0).unwrap();
        encrypted.write_all(b"N").unwrap();
    });
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=allow");
    ls(&[("DATABASE_URL", &url)])
        .assert_code(69)
        .assert_stderr("SSL required; ")
        .assert_stderr("does not support TLS");
}

/// As with libpq, zero is the default of the system.
#[test]
fn keepalives_of_zero_are_those_of_the_system() {
    for name in ["keepalives_idle", "keepalives_interval", "keepalives_count"] {
        let address = with_parameters(&url(), &format!("{name}=0"));
        ls(&[("DATABASE_URL", &address)]).assert_code(0);
    }
}

#[test]
fn failure_never_shows_the_password() {
    let url = "postgres://u:very-secret@127.0.0.1:1/d";
    let done = ls(&[("DATABASE_URL", url)]);
    assert!(
        !done.assert_code(69).stderr.contains("very-secret"),
        "{done:?}"
    );
    for url in [
        "postgres://u:very-secret@h:x/d",
        "postgres://u:secret%@h/d",
        "postgres://u:secret%FF@h/d",
        "postgres://u:secret/@h/d",
        "postgres://u:?secret@h/d",
        "postgres://u:?secret=1@h/d",
        "host=h password=very secret",
        "host=h password=very secret=1",
    ] {
        let mut command = program(&["ls", "--database-url", url]);
        command.env_remove("DATABASE_URL");
        let done = run_command(command);
        assert!(!done.assert_code(64).stderr.contains("secret"), "{done:?}");
    }
}

#[test]
fn second_host_is_tried_after_the_first() {
    let mut observer = connect();
    let port = observer.setting("port");
    let (user, database) = (
        observer.text("current_user"),
        observer.text("current_database()"),
    );
    let address = url();
    let authority = address
        .split("://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let password = authority
        .split('@')
        .next()
        .and_then(|user| user.split_once(':'))
        .map(|(_, word)| word.to_owned());
    let hosts = format!("host=127.0.0.1,127.0.0.1 port=1,{port} user={user} dbname={database}");
    // This server ends the session at the check.
    let fake = FakeServer::start([Rule::end_session("pg_is_in_recovery", "57P01")]);
    let fake_url = fake.url();
    let (_, behind) = fake_url.rsplit_once(':').unwrap();
    let (fake_port, _) = behind.split_once('/').unwrap();
    let checked = hosts.replace("port=1,", &format!("port={fake_port},"));
    let checked = format!("{checked} target_session_attrs=primary sslmode=disable");
    for hosts in [&hosts, &checked] {
        let mut command = program(&["ls", "-d", hosts]);
        command.envs(password.clone().map(|password| ("PGPASSWORD", password)));
        run_command(command).assert_code(0);
    }
    let mut command = program(&["ls", "-d", &format!("{hosts} target_session_attrs=standby")]);
    command.env("PGCONNECT_TIMEOUT", "30");
    run_command(command)
        .assert_code(78)
        .assert_stderr("target_session_attrs");
}

/// As libpq, because another server would refuse the password, too. The refusal is reported.
#[test]
fn host_after_a_refusal_is_not_tried() {
    let port = password_server();
    let hosts = format!(
        "host=127.0.0.1,127.0.0.1 port={port},1 user=u dbname=d password=one sslmode=disable"
    );
    ls(&[("DATABASE_URL", &hosts)])
        .assert_code(77)
        .assert_stderr("refused password one");
}

/// As in libpq, `@` is the zero byte of the socket's name.
#[test]
fn socket_may_be_abstract() {
    let directory = fresh_name();
    let address = SocketAddr::from_abstract_name(format!("{directory}/.s.PGSQL.1")).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    thread::spawn(move || {
        let _ = refuse(listener.accept().unwrap().0);
    });
    let url = format!("postgres://u:one@:1/d?host=@{directory}");
    ls(&[("DATABASE_URL", &url)])
        .assert_code(77)
        .assert_stderr("refused password one");
}

#[test]
fn failure_names_each_host() {
    let hosts = "host=/no/such/directory,127.0.0.1 port=1 user=u dbname=d";
    ls(&[("DATABASE_URL", hosts)])
        .assert_code(69)
        .assert_stderr("/no/such/directory/.s.PGSQL.1")
        .assert_stderr("127.0.0.1:1");
}

/// As with libpq, and not that of the variable `USER`, which `su` and `sudo` may keep.
#[test]
fn default_role_is_the_user_of_the_process() {
    let database = url();
    let (server, _) = database.rsplit_once('/').unwrap();
    let server = server.rsplit_once('@').map_or(server, |(_, server)| server);
    let server = server.trim_start_matches("postgres://");
    let anonymous = format!("postgres://{server}/no_such_database");
    let done = ls(&[
        ("DATABASE_URL", &anonymous),
        ("USER", "role_of_the_variable"),
        ("LOGNAME", "role_of_the_variable"),
    ]);
    assert_ne!(done.code, Some(0));
    assert!(!done.stderr.contains("role_of_the_variable"), "{done:?}");
}

#[test]
fn application_name_names_the_lock_or_is_the_users() {
    let name = fresh_name();
    let shown = |variables: &[(&str, &str)]| {
        let inner = format!("'{}' who {name}", env!("CARGO_BIN_EXE_advisory-lock"));
        let mut command = program(&["run", &name, "-c", &inner]);
        command.envs(variables.iter().copied());
        run_command(command).assert_code(0).stdout.clone()
    };
    assert!(shown(&[]).contains(&format!("advisory-lock run {name}")));
    assert!(shown(&[("PGAPPNAME", "nightly-job")]).contains("nightly-job"));
}
